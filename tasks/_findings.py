"""What `ovis doctor` finds."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        what: What is wrong, and what comes of it.
        where: The file or folder.
        now: What to do about it.
    """

    what: str
    where: Path
    now: str
