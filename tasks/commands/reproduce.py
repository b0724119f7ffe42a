"""`ovis reproduce`: train a registered version once more, from what it was made of, and compare.

ovis reproduce 3
ovis reproduce 3 --into /data/once-more

Code and settings come from the recorded commit and its recorded changes, data from DVC's cache or
from the stages that make it, all in a working tree of its own.  Exit code 0: the model is the
same to the bit; 3: it is another.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovis_model.errors import ConfigError, DataError
from ovis_model.model_comparison import FileComparison, compare_files, measure_differences
from ovis_model.model_folder import MANIFEST, digest_of, listed_digest, read_json
from ovis_model.registry import INPUTS_DIGEST, MODEL_DIGEST
from ovis_model.reports import Report
from tasks._locked_packages import other_versions
from tasks.artifacts import (
    GIT_DIFF_PATCH,
    KEPT_MODELS,
    LOCK_FILE,
    MODEL,
    REPRODUCE_REPORT,
    REPRODUCED,
    TRAIN_REPORT,
)
from tasks.params import Params

if TYPE_CHECKING:
    from tasks._past_tree import PastTree
    from tasks._registry import MlflowRegistry

DIFFERENT = 3
#: What of a train report is not computed, but found on the machine.
SURROUNDINGS = ("device", "dtype", "world_size", "zero_stage", "attn_implementation", "execution")


class ReproduceReport(Report):
    """What came of it."""

    model_name: str
    version: int
    commit: str
    changes: str | None
    """sha256 of the changes to the commit that were applied."""
    inputs_digest: str
    registered_digest: str
    reproduced_digest: str
    identical: bool
    files: dict[str, FileComparison]
    """Empty if the files of the registered model are not on record, only its digest."""
    environment: dict[str, tuple[str, str]]
    """What was another there than here, as far as it is on record."""


@dataclass(frozen=True)
class Record:
    """What the registry knows of how a version was made.

    Attributes:
        version: Its number.
        model_digest: Of all its files together.
        inputs_digest: Of settings and data of its training.
        datasets: Digests of what was read, by name.
        commit: Of the code.
        changes: sha256 of what differed from the commit; None if nothing did.
        patch: Those changes; None if they are not on record.
        files: sha256 of its files by name; empty if not on record.
        training: Its train report; empty if not on record.
        tags: Of its run; they tell of interpreter, packages and machine, too.
    """

    version: int
    model_digest: str
    inputs_digest: str
    datasets: Mapping[str, str]
    commit: str
    changes: str | None
    patch: bytes | None
    files: Mapping[str, str]
    training: Mapping[str, Any]
    tags: Mapping[str, str]


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "train a version once more from its recorded commit and data, and compare the models"
    parser: argparse.ArgumentParser = commands.add_parser("reproduce", help=text, description=text)
    parser.add_argument("version", type=int, help="its number in the registry")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="a new folder to work in")
    parser.add_argument(
        "--without-changes",
        action="store_true",
        help="from the commit alone, without what was not committed",
    )


def reproduce(options: argparse.Namespace) -> int:
    """Do it and return the exit code.

    Raises:
        ConfigError: If what would be needed is not here, or not on record.
        DataError: If data or settings are not those that are on record.
        PromotionError: If there is no such version.
        StageError: If a step ends with an error.
    """
    name = Params.read().register_.model_name
    # Imported here: mlflow takes seconds, which `ovis status` need not wait for.
    from tasks._past_tree import make_past_tree  # noqa: PLC0415
    from tasks._registry import MlflowRegistry  # noqa: PLC0415

    record = read_record(MlflowRegistry(name), options.version)
    patch = None if options.without_changes else changes_of(record)
    folder = options.into or REPRODUCED / f"{name}-{options.version}"
    tree = make_past_tree(folder, commit=record.commit, patch=patch, log=Terminal())
    tree.restore_data()
    check_inputs(record, tree.ask_inputs())
    environment = describe_packages(tree.path / LOCK_FILE) | describe_machine(record)
    for what, (then, now) in environment.items():
        sys.stdout.write(f"warning: {what}: {then} then, {now} here\n")
    tree.train()
    report = compare(name, record, tree, environment, changes=record.changes if patch else None)
    report.write(REPRODUCE_REPORT)
    sys.stdout.write(as_text(report, folder))
    return 0 if report.identical else DIFFERENT


class Terminal:
    """Takes DVC's lines to the terminal."""

    def info(self, message: str, /, *arguments: object) -> None:
        """Show one line."""
        sys.stdout.write(f"{message % arguments}\n")
        sys.stdout.flush()


def read_record(registry: "MlflowRegistry", version: int) -> Record:
    """Collect what is on record of a version.

    Raises:
        ConfigError: If that does not say what it was trained from.
        PromotionError: If there is no such version.
    """
    # Imported here, as above.
    from tasks.tracking.facts import GIT_DIFF  # noqa: PLC0415

    tags, run = registry.tags_of(version), registry.run_of(version)
    commit = run.data.tags.get("mlflow.source.git.commit")
    if commit is None or not run.data.params:
        raise ConfigError(
            f"version {version} cannot be reproduced: its training was not recorded in this store"
            + (", or not in a git repository" if commit is None else "")
        )
    used = run.inputs.dataset_inputs if run.inputs else ()
    digests = {one.dataset.name: {tag.key: tag.value for tag in one.tags} for one in used}
    manifest = json.loads(registry.file_of_run(version, MANIFEST) or b"{}").get("files", {})
    return Record(
        version=version,
        model_digest=tags[MODEL_DIGEST],
        inputs_digest=tags[INPUTS_DIGEST],
        datasets={name: tag["ovis.sha256"] for name, tag in digests.items()},
        commit=commit,
        changes=run.data.tags.get(GIT_DIFF),
        patch=registry.file_of_run(version, GIT_DIFF_PATCH),
        # The run may have been repeated with another result: then these are not its files.
        files=manifest if digest_of(manifest) == tags[MODEL_DIGEST] else {},
        training=json.loads(registry.file_of_run(version, TRAIN_REPORT.name) or b"{}"),
        tags=run.data.tags,
    )


def changes_of(record: Record) -> bytes | None:
    """Return the changes to the commit; None if there were none.

    Raises:
        ConfigError: If there were some, and they are not known.
        DataError: If what is kept of them is not what ran.
    """
    from tasks.tracking.facts import GIT_DIRTY, digest_of_patch  # noqa: PLC0415

    # An attempt before the last one may have had changes, which were committed since.
    if record.changes is None or record.tags.get(GIT_DIRTY) == "false":
        return None
    if record.patch is None:
        raise ConfigError(
            f"version {record.version} was trained from commit {record.commit} with changes that "
            f"were not committed (sha256 {record.changes}), and they are not on record; "
            "--without-changes trains from the commit alone"
        )
    if digest_of_patch(record.patch) != record.changes:
        raise DataError(
            f"{GIT_DIFF_PATCH} of version {record.version} is not what ran: its sha256 is "
            f"{digest_of_patch(record.patch)}, not {record.changes}"
        )
    return record.patch


def check_inputs(record: Record, found: Mapping[str, Any]) -> None:
    """Compare what a training would read now with what it read then.

    Raises:
        DataError: Naming what is another.
    """
    if found["digest"] == record.inputs_digest:
        return
    others = [
        f"{name}: sha256 {found['datasets'].get(name)}, not {digest}"
        for name, digest in record.datasets.items()
        if found["datasets"].get(name) != digest
    ]
    raise DataError(
        f"version {record.version} was trained from other inputs than these, so nothing was "
        f"trained: {'; '.join(others) or 'the settings of `train` are others'}. "
        "`ovis lineage` lists what is on record of them"
    )


def describe_packages(lock: Path) -> dict[str, tuple[str, str]]:
    """Return the packages that were locked then and are others here."""
    if not lock.is_file():
        return {LOCK_FILE.name: ("not committed", "unknown")}
    return other_versions(lock)


def describe_machine(record: Record) -> dict[str, tuple[str, str]]:
    """Return what of interpreter, packages and machine was another than it is here."""
    from tasks.tracking.facts import LOCKS, environment_tags  # noqa: PLC0415

    here = environment_tags()
    return {
        name.removeprefix("ovis."): (then, here[name])
        for name, then in record.tags.items()
        if name in here and name not in LOCKS and then != here[name]
    }


def compare(
    name: str,
    record: Record,
    tree: "PastTree",
    surroundings: Mapping[str, tuple[str, str]],
    *,
    changes: str | None,
) -> ReproduceReport:
    """Compare the model that was trained with the registered one."""
    reproduced = tree.path / MODEL
    found = read_json(reproduced / MANIFEST).get("files", {})
    files = compare_files(record.files, found) if record.files else {}
    registered = next(
        (
            folder
            for folder in (KEPT_MODELS / name / record.model_digest, MODEL)
            if listed_digest(folder) == record.model_digest
        ),
        None,
    )
    if registered:
        files = files or compare_files(read_json(registered / MANIFEST)["files"], found)
        files = measure_differences(files, registered, reproduced)
    now = read_json(tree.path / TRAIN_REPORT)
    execution = {
        what: (str(record.training[what]), str(now.get(what)))
        for what in SURROUNDINGS
        if what in record.training and record.training[what] != now.get(what)
    }
    return ReproduceReport(
        model_name=name,
        version=record.version,
        commit=record.commit,
        changes=changes,
        inputs_digest=record.inputs_digest,
        registered_digest=record.model_digest,
        reproduced_digest=digest_of(found),
        identical=digest_of(found) == record.model_digest,
        files=files,
        environment={**surroundings, **execution},
    )


def as_text(report: ReproduceReport, folder: Path) -> str:
    """Lay the report out for a terminal."""
    source = f"commit {report.commit}" + (" and its changes" if report.changes else "")
    lines = [f"{report.model_name} version {report.version}, trained in {folder} from {source}"]
    lines += [f"  {name:<40}{_verdict(one)}" for name, one in report.files.items()]
    for what, (then, now) in report.environment.items():
        lines.append(f"  not as it was: {what}: {then} then, {now} now")
    lines.append(
        f"identical: model digest {report.registered_digest}"
        if report.identical
        else f"different: model digest {report.reproduced_digest}, registered was "
        f"{report.registered_digest}"
    )
    return "\n".join([*lines, str(REPRODUCE_REPORT)]) + "\n"


def _verdict(one: FileComparison) -> str:
    if one.identical:
        return "identical"
    if one.expected is None or one.found is None:
        return "only in the registered one" if one.found is None else "only in the new one"
    if one.max_abs_difference is None:
        return "different"
    return f"different, numbers by at most {one.max_abs_difference:.3g}"
