"""`ovis lineage`: what a version was made from, and which versions learned from a sample.

ovis lineage 3
ovis lineage --sample invoice-17
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ovis_model.data.sample_list import is_listed, write_sample_list
from ovis_model.errors import ConfigError
from ovis_model.registry import (
    ALIASES,
    BASE_DIGEST,
    DATA_DIGEST,
    FORCED,
    INPUTS_DIGEST,
    JUDGED_AGAINST,
    MODEL_DIGEST,
    NUM_SAMPLES,
    VERDICT,
)
from tasks.params import Params

if TYPE_CHECKING:
    from tasks._registry import MlflowRegistry

UNKNOWN = "unknown"

logger = logging.getLogger(__name__)


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "what a version was made from, or which versions learned from a sample"
    parser: argparse.ArgumentParser = commands.add_parser("lineage", help=text, description=text)
    parser.add_argument("version", type=int, nargs="?", help="its number in the registry")
    parser.add_argument("--sample", metavar="ID", help="the id of a sample, as in the raw data")


def lineage(options: argparse.Namespace) -> None:
    """Tell one of the two.

    Raises:
        ConfigError: If neither or both are asked for, or params.yaml or the store cannot be used.
        PromotionError: If there is no such version.
    """
    if (options.version is None) == (options.sample is None):
        raise ConfigError("name a version (`ovis lineage 3`) or a sample (`--sample ID`)")
    name = Params.read().register_.model_name
    # Imported here: mlflow takes seconds, which `ovis status` need not wait for.
    from tasks._registry import MlflowRegistry  # noqa: PLC0415

    registry = MlflowRegistry(name)
    if options.sample is None:
        lines = describe(registry, name, options.version)
    else:
        lines = describe_sample(registry, options.sample)
    sys.stdout.writelines(f"{line}\n" for line in lines)


def keep_sample_list(registry: "MlflowRegistry", version: int, extracted: Path) -> None:
    """Keep the list of samples with a version that has none yet.

    Only if they are the version's: a model may have been trained elsewhere, on other data.

    Raises:
        DataError: If the extracted data is not what its manifest says.
    """
    tags = registry.tags_of(version)
    if NUM_SAMPLES in tags:
        return
    # Imported here: readers of annotations take a moment, which `ovis status` need not wait for.
    from ovis_model.training.inputs import read_extracted  # noqa: PLC0415

    inputs = read_extracted(extracted)
    if inputs.digest != tags.get(DATA_DIGEST):
        logger.warning(
            "version %d was not trained on %s, so which samples it saw is not kept",
            version,
            extracted,
        )
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / _list_of(inputs.digest)
        count = write_sample_list((sample.id for sample in inputs.train), path)
        registry.keep_file(version, path)
    registry.set_tags(version, {NUM_SAMPLES: str(count)})


def describe(registry: "MlflowRegistry", name: str, version: int) -> Iterator[str]:
    """Tell everything that is on record of where a version comes from.

    Raises:
        PromotionError: If there is no such version.
    """
    tags, run = registry.tags_of(version), registry.run_of(version)
    aliases = [alias for alias in ALIASES if registry.version_at(alias) == version]
    yield f"{name} version {version}" + (f" ({', '.join(aliases)})" if aliases else "")
    rows = {
        "model digest": tags.get(MODEL_DIGEST, UNKNOWN),
        "inputs digest": tags.get(INPUTS_DIGEST, UNKNOWN),
        "data digest": tags.get(DATA_DIGEST, UNKNOWN),
        "samples": _samples(tags),
        "code": _code(run.data.tags),
        "run": f"{run.info.run_id}, {run.info.status}",
        "parent": _parent(registry, tags),
        "gate": _gate(tags),
    }
    if FORCED in tags:
        rows["forced"] = tags[FORCED]
    for used in run.inputs.dataset_inputs if run.inputs else ():
        digest = {tag.key: tag.value for tag in used.tags}.get("ovis.sha256", used.dataset.digest)
        rows[f"read: {used.dataset.name}"] = f"{digest} ({used.dataset.source})"
    rows["files"] = ", ".join(registry.kept_files(version)) or "none"
    for what, value in rows.items():
        yield f"  {what:<18}{value}"
    yield "  parameters"
    for key, value in sorted(run.data.params.items()):
        yield f"    {key:<34}{value}"


def describe_sample(registry: "MlflowRegistry", sample_id: str) -> Iterator[str]:
    """Tell which versions learned from a sample, and of which versions that is not known."""
    learned, unknown = versions_that_learned(registry, sample_id)
    held = {alias: registry.version_at(alias) for alias in ALIASES}
    for version in learned:
        aliases = [alias for alias, holder in held.items() if holder == version]
        yield f"version {version}" + (f" ({', '.join(aliases)})" if aliases else "")
    if not learned:
        yield f"no version is known to have learned from {sample_id!r}"
    if unknown:
        yield f"not known of version {', '.join(map(str, unknown))}: no list of samples was kept"


def versions_that_learned(
    registry: "MlflowRegistry", sample_id: str
) -> tuple[list[int], list[int]]:
    """Return the versions that learned from a sample, and those of which it is not known."""
    answers: dict[str, bool] = {}  # by data digest: equal data has equal lists
    learned, unknown = [], []
    with TemporaryDirectory() as folder:
        for version in registry.versions():
            tags = registry.tags_of(version)
            if NUM_SAMPLES not in tags:
                unknown.append(version)
                continue
            data = tags[DATA_DIGEST]
            if data not in answers:
                path = registry.kept_file(version, _list_of(data), Path(folder))
                answers[data] = is_listed(sample_id, path)
            if answers[data]:
                learned.append(version)
    return learned, unknown


def _list_of(data_digest: str) -> str:
    return f"samples_{data_digest}.txt"


def _samples(tags: Mapping[str, str]) -> str:
    if NUM_SAMPLES not in tags:
        return UNKNOWN
    return f"{tags[NUM_SAMPLES]}; asked for one by one: `ovis lineage --sample ID`"


def _code(tags: Mapping[str, str]) -> str:
    commit = tags.get("mlflow.source.git.commit")
    if commit is None:
        return UNKNOWN
    if tags.get("ovis.git_dirty") == "false":
        return f"commit {commit}"
    return f"commit {commit} with changes, sha256 {tags.get('ovis.git_diff', UNKNOWN)}"


def _parent(registry: "MlflowRegistry", tags: Mapping[str, str]) -> str:
    base = tags.get(BASE_DIGEST)
    if base is None:
        return "none: the base model is not of this pipeline"
    version = registry.find_version(MODEL_DIGEST, base)
    return f"version {version}" if version else f"model {base}, which is not in this registry"


def _gate(tags: Mapping[str, str]) -> str:
    against = tags.get(JUDGED_AGAINST)
    if against is None:
        return "not judged"
    return f"{tags.get(VERDICT, UNKNOWN)} against {_name(int(against))}"


def _name(version: int) -> str:
    return f"version {version}" if version else "no champion"
