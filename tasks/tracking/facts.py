"""What a run should know of where it ran: the code, its changes, the environment, the process."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from ovis_model.reports import sha256_of_file
from tasks.artifacts import TRIGGER_VARIABLE
from tasks.masking import masked_bytes

#: `digest_of_patch` of `git diff HEAD --binary`, where tracked files differ from the commit; the
#: difference itself is the run's file `GIT_DIFF_PATCH`.
GIT_DIFF = "ovis.git_diff"
#: "true" or "false", or "unknown" without git.  "false" overrules a `GIT_DIFF` of an earlier
#: attempt, for tags are set and never taken away.
GIT_DIRTY = "ovis.git_dirty"
#: Why the flow began that this process belongs to, where one did.
TRIGGER = "ovis.trigger"
#: The process that writes a run, as `process_identity` has it.
PROCESS = "ovis.process"
#: Files whose digests say which packages and which data were used.
LOCKS = {"ovis.requirements_lock": Path("requirements.lock"), "ovis.dvc_lock": Path("dvc.lock")}
#: Overrule a person's settings of `git diff`, which may make of it what cannot be applied.
AS_APPLIED = (
    "--binary",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
)
PACKAGES = ("torch", "transformers", "deepspeed")


def git_tags() -> dict[str, str]:
    """Say which commit runs, and whether tracked files differ from it."""
    tags, _ = git_state()
    return tags


def git_state() -> tuple[dict[str, str], bytes]:
    """Return those tags, and what tracked files have that the commit has not.

    The difference is as `git apply` takes it.  Secrets in it are masked: it is kept where others
    may read it.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {GIT_DIRTY: "unknown"}, b""
    tags = {"mlflow.source.git.commit": commit.decode().strip(), GIT_DIRTY: "false"}
    difference = masked_bytes(_git("diff", "HEAD", *AS_APPLIED) or b"")
    if difference:
        tags |= {GIT_DIRTY: "true", GIT_DIFF: digest_of_patch(difference)}
    return tags, difference


def digest_of_patch(patch: bytes) -> str:
    """Return the digest by which a run names its changes: of the text without its ends."""
    return hashlib.sha256(patch.strip()).hexdigest()


def _git(*arguments: str) -> bytes | None:
    """Run git here; None where there is no git, no repository or no commit yet."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def environment_tags() -> dict[str, str]:
    """Say which packages, interpreter and machine, without importing any of them."""
    tags = {
        "ovis.python": platform.python_version(),
        "ovis.platform": platform.platform(),
        "ovis.cpus": str(len(os.sched_getaffinity(0))),
    }
    tags |= {f"ovis.{name}": version for name, version in _versions()}
    if trigger := os.environ.get(TRIGGER_VARIABLE):
        tags[TRIGGER] = trigger
    return tags | {tag: sha256_of_file(path) for tag, path in LOCKS.items() if path.is_file()}


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, installed_version(name)
        except PackageNotFoundError:
            yield name, "not installed"
