"""`ovis drift`: whether new data looks like the data that a model learned from.

ovis drift data/validated
ovis drift incoming/annotations.jsonl --media incoming --against 3
ovis drift data/extracted --against ../last-year/data/extracted --json drift.json
ovis drift data/extracted --false-alarms 400

The exit code is 0 without drift, 3 with it, and 4 if there are too few samples to tell.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ovis_model.errors import ConfigError, DataError, PromotionError
from ovis_model.registry import CHAMPION, DATA_DIGEST, DRIFT_PROFILE
from ovis_model.reports import sha256_of_file
from tasks.artifacts import DRIFT_HTML, DRIFT_REPORT
from tasks.notifications import notify
from tasks.operations import Operations
from tasks.params import Params

if TYPE_CHECKING:
    from ovis_model.data.annotations.formats import Record
    from ovis_model.data.schema import Sample
    from ovis_model.drift.comparison import DriftReport, FeatureDrift
    from ovis_model.drift.profile import Profile
    from tasks._registry import MlflowRegistry

#: By outcome.  1 and 2 are the codes of errors.
EXIT_CODES = {"no drift": 0, "drift": 3, "too few samples": 4}
#: How the file of a profile begins; annotations may be JSON too.
_PROFILE_BEGINS = b'{"format":'
TRAIN = "train.jsonl"
#: No smaller one is shown: nobody's assumptions hold that far out.
SMALLEST_P = 1e-99

logger = logging.getLogger(__name__)


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "whether new data looks like the data that a model learned from"
    parser: argparse.ArgumentParser = commands.add_parser("drift", help=text, description=text)
    parser.add_argument(
        "data", type=Path, help="a folder of the pipeline or of raw data, or an annotation file"
    )
    parser.add_argument(
        "--against",
        default=CHAMPION,
        metavar="REFERENCE",
        help="champion (default), a version, or data or a profile of it in a folder or file",
    )
    parser.add_argument("--media", type=Path, help="where media paths of DATA start")
    parser.add_argument(
        "--false-alarms",
        type=int,
        metavar="SPLITS",
        help="compare random halves of DATA instead, so often, and count what is called drift",
    )
    parser.add_argument("--json", type=Path, default=DRIFT_REPORT, help="default: %(default)s")
    parser.add_argument("--html", type=Path, default=DRIFT_HTML, help="default: %(default)s")


def drift(options: argparse.Namespace) -> int:
    """Compare, tell, and return the exit code.

    Raises:
        ConfigError: If operations.yaml or params.yaml cannot be used.
        DataError: If one side cannot be read.
        PromotionError: If there is no such version.
    """
    if options.false_alarms is not None:
        return count_false_alarms(options)
    report = check(
        options.data,
        against=options.against,
        media=options.media,
        json_file=options.json,
        html=options.html,
    )
    sys.stdout.writelines(f"{line}\n" for line in as_text(report))
    return EXIT_CODES[report.outcome]


def count_false_alarms(options: argparse.Namespace) -> int:
    """Tell how often equal halves of the data are called drift; an exit code of 0.

    Raises:
        ConfigError: If operations.yaml or params.yaml, or the number of splits, cannot be used.
        DataError: If the data cannot be read.
    """
    from ovis_model.drift.false_alarms import count_false_alarms as count  # noqa: PLC0415

    if options.false_alarms < 1:
        raise ConfigError(f"--false-alarms {options.false_alarms}: halve it at least once")
    profile = profile_of(options.data, options.media)
    found = count(profile, Operations.read().drift, splits=options.false_alarms)
    sys.stdout.write(
        f"{options.data}: of {found.splits} random splits into halves, {found.alarms} "
        f"({found.alarms / found.splits:.1%}) were called drift; {found.significant} "
        f"({found.significant / found.splits:.1%}) differed beyond chance\n"
    )
    return 0


def check(
    data: Path,
    *,
    against: str = CHAMPION,
    media: Path | None = None,
    json_file: Path = DRIFT_REPORT,
    html: Path = DRIFT_HTML,
) -> "DriftReport":
    """Compare new data with what a model learned from, write it down, and notify people of drift.

    They are told once: not if the report that is overwritten was of the same two sides.

    Args:
        data: A folder that validation or extraction wrote, one of raw data, or an annotation file.
        against: "champion", the number of a version, or the path of data or of a profile.
        media: Where the paths in `data` start; None for what its kind says.
        json_file: Report for programs.
        html: Report for people.

    Returns:
        The report; its `digest` is the same whenever the same two sides are compared.

    Raises:
        ConfigError: If operations.yaml or params.yaml cannot be used.
        DataError: If one side cannot be read.
        PromotionError: If there is no such version.
    """
    # Imported here, as below: `ovis status` need not wait for scipy or mlflow.
    from ovis_model.drift.comparison import compare  # noqa: PLC0415
    from ovis_model.drift.page import write_page  # noqa: PLC0415

    rules = Operations.read().drift
    name, reference = _reference(against)
    report = compare(
        reference, profile_of(data, media), rules, reference_name=name, new_name=str(data)
    )
    if report.outcome == "drift" and _digest_of(json_file) != report.digest:
        _announce(report, html)
    report.write(json_file)
    write_page(html, report)
    return report


def _digest_of(report: Path) -> str | None:
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return str(found.get("digest")) if isinstance(found, dict) else None


def _announce(report: "DriftReport", html: Path) -> None:
    lines = [
        f"{one.title}: {100 * (one.effect or 0):.0f} % of the samples are elsewhere"
        for one in report.features
        if one.drifted
    ]
    notify(
        "drift",
        f"{report.new} is not like the data of {report.reference}",
        "\n".join(lines),
        {"page": str(html), "samples": report.num_new, "digest": report.digest[:12]},
    )


# ---- the two sides --------------------------------------------------------------------------


def keep_profile(registry: "MlflowRegistry", version: int, extracted: Path) -> None:
    """Keep the profile of its training data with a version that has none yet.

    Only if the data is the version's; `keep_sample_list`, which comes first, says so if not.

    Raises:
        DataError: If the extracted data is not what its manifest says.
    """
    tags = registry.tags_of(version)
    if DRIFT_PROFILE in tags:
        return
    from ovis_model.training.inputs import read_extracted  # noqa: PLC0415

    inputs = read_extracted(extracted)
    if inputs.digest != tags.get(DATA_DIGEST):
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / _profile_name(inputs.digest)
        profile_of(extracted).write_compact(path)
        registry.keep_file(version, path)
        registry.set_tags(version, {DRIFT_PROFILE: sha256_of_file(path)})


def _profile_name(data_digest: str) -> str:
    return f"drift_profile_{data_digest}.json"


def _reference(against: str) -> tuple[str, "Profile"]:
    from ovis_model.drift.profile import read_profile  # noqa: PLC0415

    if against == CHAMPION or against.isdecimal():
        return _of_version(against)
    path = Path(against)
    if path.is_file():
        with path.open("rb") as file:
            is_profile = file.read(len(_PROFILE_BEGINS)) == _PROFILE_BEGINS
        if is_profile:
            return against, read_profile(path)
    return against, profile_of(path)


def _of_version(against: str) -> tuple[str, "Profile"]:
    from ovis_model.drift.profile import read_profile  # noqa: PLC0415
    from tasks._registry import MlflowRegistry  # noqa: PLC0415

    registry = MlflowRegistry(Params.read().register_.model_name)
    version = registry.version_at(CHAMPION) if against == CHAMPION else int(against)
    if version is None:
        raise PromotionError(
            "there is no champion whose training data new data could be compared with; name a "
            "version or data with --against, for example --against data/extracted"
        )
    tags = registry.tags_of(version)
    if DRIFT_PROFILE not in tags:
        raise DataError(
            f"version {version} has no profile of its training data: it was registered by an "
            "older release, or trained on other data than data/extracted held. Check out its "
            "commit and data and run `make register`, or name data with --against"
        )
    with TemporaryDirectory() as folder:
        name = _profile_name(tags[DATA_DIGEST])
        path = registry.kept_file(version, name, Path(folder))
        if sha256_of_file(path) != tags[DRIFT_PROFILE]:
            raise DataError(
                f"the profile that is kept with version {version} is not the one that was "
                "written (its sha256 differs); name data with --against"
            )
        shown = f"{CHAMPION}, version {version}" if against == CHAMPION else f"version {version}"
        return shown, read_profile(path)


def profile_of(data: Path, media: Path | None = None) -> "Profile":
    """Measure data: a folder of the pipeline or of raw data, or an annotation file.

    Raises:
        DataError: If it cannot be read.
    """
    from ovis_model.data.media_files import MediaFiles  # noqa: PLC0415
    from ovis_model.data.sample_file import SampleFile  # noqa: PLC0415
    from ovis_model.drift.profile import measure  # noqa: PLC0415

    file = data / TRAIN
    # Raw data may have a file of that name; what a step has written has a manifest, too.
    if file.is_file() and (data / "manifest.json").is_file():
        # Validation leaves media where they are; its folder is known by its list of them.
        is_validated = (data / "media.jsonl").is_file()
        root = Path(Params.read().validation.raw_data) if is_validated else data
        samples: Iterable[Sample] = SampleFile(file)
        digest = sha256_of_file(file)
    else:
        root = data if data.is_dir() else data.parent
        samples, digest = _annotated(data, root)
    return measure(samples, MediaFiles(media or root), data=digest)


def _annotated(data: Path, root: Path) -> tuple[Iterator["Sample"], str]:
    """Read annotations that were not validated, in any format that validation reads."""
    from ovis_model.config import ValidateConfig  # noqa: PLC0415
    from ovis_model.data.sources import annotation_files, read_annotations  # noqa: PLC0415

    if data.is_dir():  # raw data: which files it has, params.yaml says
        config = Params.read().validation
    else:
        config = ValidateConfig(raw_data=str(root), annotations=data.name)
    files = [path for path in annotation_files(root, config) if path.is_file()]
    digest = " ".join(map(sha256_of_file, files))
    return _parse_all(read_annotations(root, config), data), digest


def _parse_all(records: Iterator["Record"], data: Path) -> Iterator["Sample"]:
    num_bad = 0
    for record in records:
        try:
            yield record.parse()
        except DataError:
            num_bad += 1
    if num_bad:
        logger.warning("%s: %d record(s) are no samples and were not measured", data, num_bad)


# ---- for people -----------------------------------------------------------------------------


def as_text(report: "DriftReport") -> Iterator[str]:
    """Tell what was found, a line per feature."""
    yield (
        f"{report.new}: {report.num_new:,} of {report.of_new:,} samples, worth "
        f"{report.effective_new:,.0f} independent ones"
    )
    yield (
        f"against {report.reference}: {report.num_reference:,} of {report.of_reference:,}, worth "
        f"{report.effective_reference:,.0f}"
    )
    if report.unreadable_new:
        yield f"the pictures of {report.unreadable_new:,} new samples could not be read"
    yield ""
    yield f"{'feature':<26}{'effect':>8}{'p, corrected':>14}  {'before':<22}{'now':<22}"
    for one in report.features:
        yield _row(one).rstrip()
    yield ""
    yield _verdict(report)


def _row(one: "FeatureDrift") -> str:
    effect = "-" if one.effect is None else f"{one.effect:.3f}"
    p_value = "-" if one.adjusted_p is None else f"{max(one.adjusted_p, SMALLEST_P):.2g}"
    before, now = (
        (_median(one.quantiles_reference), _median(one.quantiles_new))
        if one.unit
        else _largest_change(one)
    )
    mark = "  drifted" if one.drifted else ""
    return f"{one.title:<26}{effect:>8}{p_value:>14}  {before:<22}{now:<22}{mark}"


def _median(quantiles: list[float]) -> str:
    return f"median {quantiles[1]:,.4g}" if quantiles else "none"


def _largest_change(one: "FeatureDrift") -> tuple[str, str]:
    """Show the category whose share changed most."""
    shares = zip(one.bins, one.shares_reference, one.shares_new, strict=True)
    label, before, now = max(shares, key=lambda row: abs(row[1] - row[2]))
    # Escaped where it would not be one line of text: it comes from data.
    shown = str(label) if str(label).isprintable() else ascii(label)
    return f"{before:.0%} {shown[:15]}", f"{now:.0%}"


def _verdict(report: "DriftReport") -> str:
    if report.outcome == "too few samples":
        return (
            f"too few samples: each side needs {report.rules.min_samples} independent ones "
            "(operations.yaml: drift.min_samples)"
        )
    if report.outcome == "no drift":
        return "no drift"
    return f"drift: {report.drifted_titles}"
