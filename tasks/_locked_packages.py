"""What is installed here, beside what requirements.lock says."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tasks.artifacts import LOCK_FILE

MISSING = "not installed"


def other_versions(lock: Path = LOCK_FILE) -> dict[str, tuple[str, str]]:
    """Return the packages whose version here is not the locked one: locked and installed."""
    differing = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        name, mark, locked = line.partition("#")[0].partition(";")[0].strip().partition("==")
        if mark and (installed := installed_version(name)) != locked:
            differing[name] = locked, installed
    return differing


def installed_version(name: str) -> str:
    """Return a package's version without its build (+cpu, +cu130), which is not locked."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return MISSING
