"""Which failures of a step another attempt can cure, and which it would only repeat.

    what failed                                        how it shows           again?
    a server that is needed does not answer            exit code 69           yes
    training was asked to stop, with a checkpoint      exit code 75           yes: it goes on
    another run holds DVC's lock on the working tree   DVC's words            yes
    data, code, the gate's files, memory used up       exit code 1            no
    a value in params.yaml or operations.yaml          exit code 2            no
    a step that hangs, or was killed                   its limit, a signal    no

Lack of memory has an answer of its own inside the train step: a smaller micro-batch.
"""

import re
from typing import Any

from ovis_model.errors import StageBusyError, StageError, StageStopped, StageUnavailableError

CURABLE = (StageUnavailableError, StageStopped, StageBusyError)
#: What DVC says of the command of a stage that failed.
EXIT_CODE = re.compile(r"exited with (\d+)\s*$", re.MULTILINE)
#: DVC names whoever holds the working tree in a line with one of these.
BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")


def classify(error: StageError) -> StageError:
    """Return the error of a `dvc repro` as the kind that it is, with the same words."""
    text = str(error)
    if any(words in text for words in BUSY):
        return StageBusyError(
            "another DVC run holds this working tree, and DVC allows one at a time. Wait for it "
            f"or stop it, then run again. {text}"
        )
    codes = EXIT_CODE.findall(text)
    for kind in (StageUnavailableError, StageStopped):
        if codes and int(codes[-1]) == kind.exit_code:
            return kind(text)
    return error


def is_curable(_task: Any, _task_run: Any, state: Any) -> bool:
    """Tell Prefect whether a failed task run is tried again."""
    return isinstance(state.result(raise_on_failure=False), CURABLE)


#: For `@task` of a step.
RETRY: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [10, 60, 600],
    "retry_condition_fn": is_curable,
}
