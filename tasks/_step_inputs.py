"""Code and settings of a step must stay what they were when it began.

DVC reads the digests of what a stage depends on after its command has ended: it would record an
edit, or a `git checkout`, of that time as what the results were made by.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ovis_model.errors import StageError, list_examples
from ovis_model.reports import sha256_of_file
from tasks.artifacts import DVC_STAGES, PARAMS
from tasks.params import read_yaml

#: Folders of what people edit; data and models are checked by their own manifests.
EDITED = ("config", "ovis_model", "tasks")


@contextmanager
def unchanged_inputs(step: str) -> Iterator[None]:
    """Refuse the results of a step during which its code or settings were changed.

    Raises:
        StageError: Naming what was changed.
    """
    before = read_step_inputs(step)
    yield
    after = read_step_inputs(step)
    changed = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    if changed:
        raise StageError(
            f"what it runs was changed while it ran: {list_examples(changed)}. Its results are of "
            "what was there before, and DVC would record them as made by what is there now. Run "
            f"it again; or put back what was changed, and keep them: `dvc commit -f {step}`"
        )


def read_step_inputs(step: str) -> dict[str, Any]:
    """Return the digests of a step's code, and its settings, by name.

    Nothing where there is no dvc.yaml: then nobody records what they were.
    """
    if not DVC_STAGES.is_file():
        return {}
    stage = read_yaml(DVC_STAGES)["stages"][step]
    settings = read_yaml(PARAMS)
    code = [Path(one) for one in stage["deps"] if Path(one).parts[0] in EDITED]
    files = {str(path): sha256_of_file(path) for one in code for path in _files(one)}
    return files | {f"{PARAMS}: {name}": _value(settings, name) for name in stage["params"]}


def _files(place: Path) -> Iterator[Path]:
    """List a file, or the files of a folder that DVC counts; of one that is gone nothing."""
    if place.is_file():
        yield place
    for path in sorted(place.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _value(settings: Any, name: str) -> Any:
    """Follow a dotted name; None if there is nothing."""
    for part in name.split("."):
        settings = settings.get(part) if isinstance(settings, dict) else None
    return settings
