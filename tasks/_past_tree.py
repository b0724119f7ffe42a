"""A working tree of its own for a commit of this repository: code, settings and data as they were.

It shares git's objects and DVC's cache with this tree, and reads them only.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovis_model.errors import ConfigError, DataError
from tasks._dvc import Log, cache_folder, run_dvc

#: Where a run keeps its record; the past writes into a record of its own.
RECORDS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "PREFECT_API_URL",
    "PREFECT_HOME",
)
#: Asks the train step of that time: what belongs to a training's inputs is its to say.
ASK_INPUTS = """
import json
from tasks import train
from tasks.params import Params
config = Params.read().train
datasets = train.dataset_digests(config)
digests = {name: digest for name, (_, digest) in datasets.items()}
print(json.dumps({"digest": train.inputs_digest(config, datasets), "datasets": digests}))
"""


@dataclass(frozen=True)
class PastTree:
    """A working tree at a commit.

    Attributes:
        path: Its root.
        log: Receives what DVC says.
    """

    path: Path
    log: Log

    @property
    def environment(self) -> dict[str, str]:
        """What its commands run with: its own code, its own record of runs."""
        inherited = {key: value for key, value in os.environ.items() if key not in RECORDS}
        paths = [str(self.path.resolve()), os.environ.get("PYTHONPATH", "")]
        return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def restore_data(self) -> None:
        """Bring what a training reads: from the cache where it is there, else made anew."""
        upstream = ["checkout", "--quiet", "--with-deps", "--allow-missing", "extract"]
        self.dvc(*upstream)
        self._repro("extract")

    def ask_inputs(self) -> dict[str, Any]:
        """Return the digest of the training's inputs, and those of its datasets by name.

        Raises:
            DataError: If the train step of that time does not say.
        """
        done = subprocess.run(
            [sys.executable, "-c", ASK_INPUTS],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DataError(
                f"the train step in {self.path} does not say what it would read:\n"
                f"{done.stderr[-1000:]}"
            )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def train(self) -> None:
        """Train, whatever DVC's cache of runs knows.

        With `--single-item`, for the stages before it were brought up to date and are right.
        """
        self._repro("--single-item", "--force", "train")

    def _repro(self, *arguments: str) -> None:
        """Run stages, and leave no word of it in the cache.

        The cache holds a list of runs, too, of which DVC restores the newest: what came out here
        another time must not be restored in this tree as its own.
        """
        self.dvc("repro", "--no-commit", *arguments)

    def dvc(self, *arguments: str) -> None:
        """Run a DVC command there."""
        run_dvc(["--cd", str(self.path), *arguments], self.log, environment=self.environment)


def make_past_tree(folder: Path, *, commit: str, patch: bytes | None, log: Log) -> PastTree:
    """Check a commit out into a new folder, with the changes that were not committed.

    Args:
        folder: Not there, or empty.
        commit: Of this repository.
        patch: What `git diff HEAD --binary` said then; None for nothing.
        log: Receives what DVC says.

    Raises:
        ConfigError: If the folder holds something, or the commit is not in this repository.
        DataError: If the changes do not fit the commit.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is there already; delete it (`rm -r {folder}`), or name another folder "
            "with --into"
        )
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise ConfigError(
            f"commit {commit} is not in this repository; fetch it (`git fetch --all`, or "
            "`git fetch --unshallow` in a shallow clone), then run this again"
        )
    _need(_git("clone", "--quiet", "--shared", "--no-checkout", ".", str(folder)))
    _need(_git("-C", str(folder), "checkout", "--quiet", "--detach", commit))
    if patch:
        _apply(patch, folder)
    tree = PastTree(folder, log)
    tree.dvc("config", "--quiet", "--local", "cache.dir", str(cache_folder()))
    return tree


def _apply(patch: bytes, folder: Path) -> None:
    whole = patch if patch.endswith(b"\n") else patch + b"\n"
    done = _git("-C", str(folder), "apply", "--whitespace=nowarn", "-", given=whole)
    if done.returncode:
        raise DataError(
            f"the recorded changes cannot be applied in {folder}:\n"
            f"{done.stderr.decode(errors='replace')}"
        )


def _git(*arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", *arguments], input=given, capture_output=True, check=False)


def _need(done: "subprocess.CompletedProcess[bytes]") -> "subprocess.CompletedProcess[bytes]":
    """Hand on a command that succeeded.

    Raises:
        ConfigError: With what it said, if it did not.
    """
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ConfigError(f"`{' '.join(map(str, done.args))}` failed: {said}")
    return done
