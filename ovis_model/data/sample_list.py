"""Which samples a model has learned from, as a file that stays with the model's record.

One line per sample: the sha256 of its id, in order.  The list answers "was this sample in it?"
after the data has changed, and gives no id away to who does not know it.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ovis_model.reports import write_text


def write_sample_list(ids: Iterable[str], path: Path) -> int:
    """Write the list and return how many samples it has; an id given twice counts once."""
    lines = sorted({_line(one) for one in ids})
    write_text(path, "".join(lines))
    return len(lines)


def is_listed(sample_id: str, path: Path) -> bool:
    """Look a sample up.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "samples.txt"
        ...     number = write_sample_list(["a", "b", "a"], path)
        ...     number, is_listed("b", path), is_listed("c", path)
        (2, True, False)
    """
    wanted = _line(sample_id)
    with path.open(encoding="ascii") as file:
        return any(line == wanted for line in file)


def _line(sample_id: str) -> str:
    return hashlib.sha256(sample_id.encode()).hexdigest() + "\n"
