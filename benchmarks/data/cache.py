"""Where generated files stay: below the folder for temporary files, this user's alone.

A million annotations take a gigabyte and some seconds, a clip half a minute: they are written
once, and found again by later runs and by the other processes of this one.  The name says what a
file holds; whoever changes how one is made gives it another name.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """Return a folder that the processes of a benchmark share.

    Raises:
        PermissionError: If somebody else made it.
    """
    folder = Path(tempfile.gettempdir()) / f"ovis-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else; set TMPDIR to another folder")
    return folder


def cached(name: str, write: Callable[[Path], None]) -> Path:
    """Return a file or folder, made at first; nobody ever sees half of it.

    Args:
        name: Path below the folder.
        write: Makes it at the path it is given.
    """
    path = cache_folder() / name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write(partial)
    try:
        partial.rename(path)
    except OSError:  # a folder that another process finished meanwhile
        if not path.is_dir():
            raise
        shutil.rmtree(partial)
    return path
