"""Everything this project raises on purpose.

    OvisError
    ├── ConfigError             a value in params.yaml or train_config.json cannot be used
    │   └── UnavailableError    what it names does not answer now, and may later
    ├── DataError               a sample, an image or a video cannot be used
    │   ├── MediaError          one file cannot be used, for a reason with a code
    │   └── PlaceholderError    text and media of one sample disagree
    ├── CheckpointError         a model directory is missing something or does not fit
    ├── TrainingError           training cannot go on, or its result must not be used
    │   └── OutOfMemoryError    a step did not fit; the next start takes less at a time
    ├── TrainingStopped         training was asked to stop, and can go on where it stopped
    ├── GateError               two evaluation reports cannot be compared
    ├── PromotionError          an alias cannot move as asked, or the record of moves was changed
    └── StageError              a process that ran a step ended with an error
        ├── StageStopped            it was asked to stop, and can go on where it stopped
        ├── StageUnavailableError   a server that it needs did not answer
        └── StageBusyError          another run holds the working tree

Catch `OvisError` at the edge (tasks/__main__.py does); catch a leaf only where you can do
better than stop.  `ValueError` is for misuse by a caller, `assert` for our own bugs.
"""

from typing import ClassVar

#: How many offenders a message lists before it only counts the rest.
MAX_EXAMPLES = 5


class OvisError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(OvisError):
    """A configuration value cannot be used."""


class UnavailableError(ConfigError):
    """What a configuration value names does not answer now; the same may work later."""


class DataError(OvisError):
    """A sample, an image or a video cannot be used."""


class MediaError(DataError):
    """An image or video file cannot be used.

    Attributes:
        code: The reason, one of `ovis_model.data.reasons.MEDIA_PROBLEMS`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class CheckpointError(OvisError):
    """A model directory is missing something or does not fit."""


class TrainingError(OvisError):
    """Training cannot go on, or its result must not be used."""


class TrainingStopped(OvisError):  # noqa: N818 - nothing went wrong
    """Training was asked to stop, and the same command goes on where it stopped."""


class OutOfMemoryError(TrainingError):
    """A step did not fit into memory; the next start goes on with a smaller micro-batch."""


class GateError(OvisError):
    """Two evaluation reports cannot be compared."""


class PromotionError(OvisError):
    """An alias cannot move as asked, or the record of its moves is not what was written."""


class StageError(OvisError):
    """A process that ran a pipeline step ended with an error."""


class StageStopped(StageError):  # noqa: N818 - nothing went wrong
    """A process that ran a pipeline step was asked to stop, and can go on where it stopped."""

    exit_code: ClassVar[int] = 75


class StageUnavailableError(StageError):
    """A process that ran a pipeline step needed a server that did not answer."""

    exit_code: ClassVar[int] = 69


class StageBusyError(StageError):
    """Another run holds the working tree, and it allows one at a time."""


class PlaceholderError(DataError):
    """The placeholders in a text disagree with the media that come with it.

    Attributes:
        sample_id: The sample, or None for a prompt.
    """

    def __init__(self, sample_id: str | None, *, kind: str, in_text: int, in_media: int) -> None:
        if sample_id is None:
            message = (
                f"the prompt has {in_text} <{kind}> placeholder(s) but comes with {in_media} "
                f"{kind}(s); give one item of type {kind!r} for each {kind}, in their order"
            )
        else:
            message = (
                f"sample {sample_id!r}: the text has {in_text} <{kind}> placeholder(s) but the "
                f"sample carries {in_media} {kind} file(s). Add or remove placeholders in the "
                f"'human' turns, or fix the {kind!r} field, then run `make validate` again."
            )
        super().__init__(message)
        self.sample_id = sample_id


def list_examples(offenders: list[str]) -> str:
    """Join the first few offenders and count the rest, so that messages stay bounded.

    Example:
        >>> list_examples(["a", "b"])
        'a, b'
        >>> list_examples([str(n) for n in range(7)])
        '0, 1, 2, 3, 4 and 2 more'
    """
    shown = ", ".join(offenders[:MAX_EXAMPLES])
    hidden = len(offenders) - MAX_EXAMPLES
    return f"{shown} and {hidden} more" if hidden > 0 else shown
