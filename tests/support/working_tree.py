"""A working tree of its own for a test: the project's files as they are now, in a git repository.

Commands run in it see its code and nothing of this tree's data, registry or servers, and
may not connect to another machine.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
EGRESS = ROOT / "tests/support/egress"
#: The user's own settings stay outside: they would lead out of the working tree.
#: SHELL too: a service has none, and DVC then takes /bin/sh.
OUTSIDE = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", "CRON", "SHELL")
#: Secrets that every command here can read in its environment, and none may repeat anywhere.
SECRETS = {
    "HF_TOKEN": "hf_" + "planted" * 5,
    "AWS_SECRET_ACCESS_KEY": "planted/Aws/0123456789abcdefghijklmnopqrs",
    "DEMO_PASSWORD": "planted horse battery",
}
#: A pipeline in seconds: few samples, a handful of optimizer steps, no floor in the gate, and
#: margins that two items are enough for.
SMALL_SAMPLE = {
    "digits.train": {
        "single_digits": 24,
        "multi_image": 8,
        "video_files": 3,
        "video_frame_lists": 6,
        "grounding": 8,
        "text_only": 4,
        "system_prompt": 4,
        "multi_turn": 4,
    },
    "digits.benchmarks": {
        "digits_single": 8,
        "digits_multi_image": 4,
        "digits_video": 2,
        "digits_grounding": 4,
    },
}
SMALL_RUN = {
    "validate.holdout_fraction": 0.1,
    "train.max_steps": 6,
    "train.logging_steps": 1,
    "train.save_steps": 2,
    "train.nproc_per_node": 1,
    "train.per_device_train_batch_size": 8,
    "register.gate.min_score": {"digits_single": 0.0},
    "register.gate.margin": 99.0,
    "register.gate.margins": {
        "digits_grounding": 99.0,
        "digits_multi_image": 99.0,
        "digits_video": 99.0,
    },
}


@dataclass(frozen=True)
class WorkingTree:
    """A git repository with the project's files."""

    path: Path

    @property
    def environment(self):
        """What commands run with."""
        inherited = {key: value for key, value in os.environ.items() if key not in OUTSIDE}
        return {
            **inherited,
            **SECRETS,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            # This tree's code comes before the installed one, which is the tested tree's.
            "PYTHONPATH": os.pathsep.join([str(EGRESS), str(self.path)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "EGRESS_LOG": str(self.egress_log),
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    @property
    def egress_log(self):
        """Attempts to leave this machine, one per line; missing if there were none."""
        return self.path.parent / "egress.log"

    def run(self, *command, check=True):
        """Run a command to its end and return it, its output as text."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-6000:]}"
        return done

    def start(self, *command):
        """Start a command in a session of its own, its output in `output.log` beside the tree."""
        with self.output_log.open("w") as log:
            return subprocess.Popen(
                command,
                cwd=self.path,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output_log(self):
        """Output of the command that was started last."""
        return self.path.parent / "output.log"

    def repro(self, *arguments):
        """Run `dvc repro` and return the names of the root stages that ran."""
        return stages_that_ran(self.run("dvc", "repro", *arguments).stdout)

    def change_params(self, file="params.yaml", **changes):
        """Set values of a params file by their dotted names; a mapping updates a mapping."""
        path = self.path / file
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        for place, value in changes.items():
            *sections, key = place.split(".")
            target = params
            for section in sections:
                target = target[section]
            target[key] = {**target.get(key, {}), **value} if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    def commit(self, message):
        """Commit everything that is not ignored."""
        self.run("git", "add", "--all")
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        self.run("git", *identity, "commit", "--quiet", "--message", message)

    def processes(self):
        """Return the command line of every process that works in this tree."""
        return list(self.process_ids().values())

    def process_ids(self):
        """Return the same, by process id."""
        found = {}
        for link in Path("/proc").glob("[0-9]*/cwd"):
            try:
                if link.readlink().is_relative_to(self.path):
                    line = (link.parent / "cmdline").read_text().replace("\0", " ")
                    found[int(link.parent.name)] = line
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue
        return found


def stages_that_ran(output):
    """Pick the stages out of what `dvc repro` says, those of data/sample/dvc.yaml left out."""
    return re.findall(r"Running stage '(\w+)':", output)


def copy_working_tree(folder, *, small=True):
    """Copy what git has or would add, and commit it there.

    Args:
        folder: Where the tree is made.
        small: Whether the sample and the run on it are small, too.
    """
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tree = WorkingTree(folder / "clone")
    for name in filter(None, files.split("\0")):
        # A file that was deleted and not yet committed is still listed.
        if (ROOT / name).is_file():
            (tree.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree.path / name)
    if small:
        for place, values in SMALL_SAMPLE.items():
            tree.change_params("data/sample/params.yaml", **{place: values})
        tree.change_params(**SMALL_RUN)
    tree.run("git", "init", "--quiet", "--initial-branch=main")
    tree.commit("the project as it is")
    return tree
