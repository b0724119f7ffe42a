"""`ovis data`: look at a dataset, convert it, split it, compare two versions of it.

ovis data convert llava.json annotations.jsonl --from llava
ovis data show sample_17 --html sample_17.html
ovis data stats
ovis data split annotations.json --holdout 0.05 --seed 0 --out parts
ovis data diff ../old/data/validated data/validated
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovis_model.errors import ConfigError, DataError, OvisError
from ovis_model.reports import sha256_of_file
from tasks.artifacts import EXTRACTED, VALIDATED
from tasks.commands import data_text
from tasks.params import Params

if TYPE_CHECKING:
    from ovis_model.data.annotations.formats import Record
    from ovis_model.data.checks.xray import XRay
    from ovis_model.data.schema import Sample

#: Where samples are looked for, the form that is trained on first.
FOLDERS = (EXTRACTED, VALIDATED)


def add_parser(commands: Any) -> None:
    """Add the command and its own commands to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        "data", help="look at a dataset, convert it, split it, compare two versions of it"
    )
    inner = parser.add_subparsers(dest="data_command", required=True)
    _add_convert(inner)
    _add_show(inner)
    _add_stats(inner)
    _add_split(inner)
    _add_diff(inner)


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    return parser


def _add_convert(commands: Any) -> None:
    parser = _add(commands, "convert", "turn an annotation file of one format into another")
    parser.add_argument("input", type=Path, help="the annotation file")
    parser.add_argument("output", type=Path, help="the file to write")
    parser.add_argument("--from", dest="source", default="auto", help="format (default: detected)")
    parser.add_argument(
        "--to", dest="target", default="ovis", help="format (default: ovis, JSONL)"
    )
    parser.add_argument("--coordinates", default="ovis", help="how INPUT writes boxes and points")
    parser.add_argument("--media", default="", help="folder to put before every media path")
    parser.add_argument("--skip-bad", action="store_true", help="leave out what is no sample")


def _add_show(commands: Any) -> None:
    parser = _add(commands, "show", "what the model reads and learns of one sample")
    parser.add_argument("id", help="the sample's id")
    _add_folder(parser)
    parser.add_argument("--html", type=Path, help="write a page with the pictures here")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--color", action="store_true", help="colours even outside a terminal")


def _add_stats(commands: Any) -> None:
    parser = _add(commands, "stats", "how many samples of each kind, and how large they are")
    _add_folder(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, help=f"folder (default: {EXTRACTED}, before that {VALIDATED})"
    )
    parser.add_argument(
        "--media", type=Path, help="where media paths start (default: what made the folder knows)"
    )


def _add_split(commands: Any) -> None:
    parser = _add(commands, "split", "hold samples out so that no picture is on both sides")
    parser.add_argument("input", type=Path, help="the annotation file")
    parser.add_argument("--holdout", type=float, required=True, help="share to hold out, 0 to 1")
    parser.add_argument("--seed", type=int, default=0, help="another one holds others out")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--media", type=Path, help="where media paths start (default: by INPUT)")
    parser.add_argument("--skip-bad", action="store_true", help="leave out what is no sample")


def _add_diff(commands: Any) -> None:
    parser = _add(commands, "diff", "what changed from one version of a dataset to another")
    parser.add_argument("before", type=Path, help="a folder of the pipeline or an annotation file")
    parser.add_argument("after", type=Path, help="likewise, the newer one")
    parser.add_argument(
        "--media", type=Path, help="where paths of annotation files start (default: beside them)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")


def data(options: argparse.Namespace) -> None:
    """Do what one of the commands says.

    Raises:
        ConfigError: If the arguments cannot be used.
        OvisError: If the data cannot be used.
    """
    commands = {
        "convert": convert,
        "show": show,
        "stats": stats,
        "split": split,
        "diff": diff,
    }
    commands[options.data_command](options)


# ---- convert --------------------------------------------------------------------------------


def convert(options: argparse.Namespace) -> None:
    """Write the samples of an annotation file in another format.

    Raises:
        DataError: If a record is no sample and those are not to be left out; nothing is written.
    """
    # Imported here, as everywhere below: `ovis status` need not wait for any of it.
    from ovis_model.data.annotations.coordinates import CONVENTIONS  # noqa: PLC0415
    from ovis_model.data.annotations.formats import FORMATS  # noqa: PLC0415
    from ovis_model.data.annotations.writing import WRITERS, write_records  # noqa: PLC0415

    _check_known("--from", options.source, FORMATS)
    _check_known("--to", options.target, WRITERS)
    _check_known("--coordinates", options.coordinates, CONVENTIONS)
    _check_new(options.output)
    how = {"format": options.source, "coordinates": options.coordinates, "media": options.media}
    num_bad = _report_bad(_read(options.input, **how), options)
    samples = (
        _put_before(options.media, sample)
        for sample in map(_parse, _read(options.input, **how))
        if sample is not None
    )
    num_written = write_records(samples, options.output, format=options.target)
    sys.stdout.write(
        f"{num_written + num_bad:,} records in, {num_written:,} samples in {options.output}, "
        f"{num_bad:,} left out\n"
    )


def _check_known(option: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise ConfigError(f"{option} is {value!r}; known are {', '.join(known)}")


def _read(
    path: Path,
    *,
    format: str = "auto",  # noqa: A002 - as params.yaml spells it
    coordinates: str = "ovis",
    media: str = "",
) -> Iterator["Record"]:
    """Read an annotation file, or a datainfo of several, as validation would."""
    from ovis_model.config import ValidateConfig  # noqa: PLC0415
    from ovis_model.data.media_files import MediaFiles  # noqa: PLC0415
    from ovis_model.data.sources import read_annotations  # noqa: PLC0415

    config = ValidateConfig(
        raw_data=str(path.parent), annotations=path.name, format=format, coordinates=coordinates
    )
    size_of = MediaFiles(path.parent / media).read_size
    return read_annotations(path.parent, config, size_of=size_of)


def _put_before(folder: str, sample: "Sample") -> "Sample":
    if not folder:
        return sample
    image = tuple(f"{folder.rstrip('/')}/{path}" for path in sample.image)
    video: Any = tuple(f"{folder.rstrip('/')}/{path}" for path in sample.frames) or None
    if isinstance(sample.video, str):
        video = f"{folder.rstrip('/')}/{sample.video}"
    return sample.model_copy(update={"image": image, "video": video})


def _parse(record: "Record") -> "Sample | None":
    try:
        return record.parse()
    except DataError:
        return None


def _report_bad(records: Iterable["Record"], options: argparse.Namespace) -> int:
    """Name every record that is no sample, and return how many there are.

    Raises:
        DataError: If there is one and they are not to be left out.
    """
    num_records = num_bad = 0
    for record in records:
        num_records += 1
        try:
            record.parse()
        except DataError as error:
            num_bad += 1
            sys.stderr.write(data_text.plain(f"{record.place} ({record.id}): {error}") + "\n")
    if num_bad and not options.skip_bad:
        raise DataError(
            f"{num_bad:,} of {num_records:,} records of {options.input} are no samples, each is "
            "named above, and nothing was written. Fix them, name the format, or leave them out "
            "with --skip-bad"
        )
    return num_bad


def _check_new(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"{path} is already there; name another file, or remove it first")


# ---- show and stats -------------------------------------------------------------------------


def show(options: argparse.Namespace) -> None:
    """Show one sample as training sees it.

    Raises:
        DataError: If there is no sample of this id.
    """
    from ovis_model.data.checks.xray import find_sample  # noqa: PLC0415

    folders = _folders(options)
    for folder in folders:
        found = find_sample(folder, options.id)
        if found is not None:
            break
    else:
        looked = " and ".join(map(str, folders))
        raise DataError(
            f"no sample {options.id!r} in {looked}. `ovis data stats` counts what is there; a "
            "sample that was set aside is listed in reports/validate_ledger.jsonl"
        )
    sample, part = found
    xray = _open_xray(folder, options)
    look = xray.look(sample)
    where = f"{folder}/{part}.jsonl"
    if options.html is not None:
        from ovis_model.data.checks.card import CardSample, write_sample_page  # noqa: PLC0415

        shown = CardSample(sample, part, xray.media.root, look.mask)
        write_sample_page(options.html, shown)
    if options.json:
        _write_json({**look.to_dict(), "part": part, "where": where})
    else:
        colour = options.color or sys.stdout.isatty()
        sys.stdout.write(data_text.look_as_text(look, part, where, colour=colour))


def stats(options: argparse.Namespace) -> None:
    """Count the samples of a folder by kind, and tell how large they are."""
    from ovis_model.data.checks.diff import PARTS  # noqa: PLC0415
    from ovis_model.data.checks.statistics import Lengths, describe  # noqa: PLC0415
    from ovis_model.data.schema import read_samples  # noqa: PLC0415

    folder = _folders(options)[0]
    xray = _open_xray(folder, options)
    tokens: list[int] = []
    supervised: list[int] = []
    problems: list[str] = []
    parts = dict.fromkeys(PARTS, 0)

    def samples() -> Iterator["Sample"]:
        for part in PARTS:
            for sample in read_samples(folder / f"{part}.jsonl"):
                parts[part] += 1
                try:
                    xray.measure_areas(sample)
                    if xray.processor is not None:
                        counts = xray.measure(sample)
                        tokens.append(counts[0])
                        supervised.append(counts[1])
                except DataError as error:
                    problems.append(str(error))
                yield sample

    found = describe(samples(), areas=xray.areas, lengths=Lengths(tokens, supervised))
    values = {"data": str(folder), "parts": parts, **found.to_dict(), "not_measured": problems}
    if options.json:
        _write_json(values)
    else:
        sys.stdout.write(data_text.statistics_as_text(found, folder, parts, problems))


def _folders(options: argparse.Namespace) -> list[Path]:
    """Return the folders to look in, those that exist.

    Raises:
        DataError: If none does.
    """
    wanted = FOLDERS if options.data is None else (options.data,)
    found = [folder for folder in wanted if (folder / "train.jsonl").is_file()]
    if not found:
        names = " or ".join(f"{folder}/train.jsonl" for folder in wanted)
        raise DataError(
            f"there is no {names}; run `dvc repro extract`, or name a folder by --data"
        )
    if options.data is None:
        _warn_if_stale(found[0])
    return found


def _warn_if_stale(folder: Path) -> None:
    """Say so if what is shown was not made from what was validated last."""
    validated = FOLDERS[-1] / "manifest.json"
    if folder == FOLDERS[-1]:
        return
    manifest = folder / "manifest.json"
    made_from = json.loads(manifest.read_bytes())["validated"] if manifest.is_file() else None
    if not validated.is_file() or sha256_of_file(validated) != made_from:
        sys.stderr.write(
            f"{folder} is older than the last validation, which may have failed; `dvc repro "
            "extract` brings it up to date\n"
        )


def _open_xray(folder: Path, options: argparse.Namespace) -> "XRay":
    from ovis_model.config import FrameSampling  # noqa: PLC0415
    from ovis_model.data.checks.xray import XRay  # noqa: PLC0415
    from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor  # noqa: PLC0415

    params = Params.read()
    # Validation leaves media where they are; its folder is known by its list of them.
    is_validated = (folder / "media.jsonl").is_file()
    root = Path(params.validation.raw_data) if is_validated else folder
    sampling = FrameSampling(
        min_frames=params.extract.min_frames, max_frames=params.extract.max_frames
    )
    try:
        base = Ovis2_5Processor.from_pretrained(params.train.ovis_pretrained_path)
    except OvisError as error:
        sys.stderr.write(f"tokens are not counted: {error}\n")
        return XRay(options.media or root, None, is_extracted=not is_validated)
    processor = base.with_settings(pixel_limits=params.train.pixel_limits, frame_sampling=sampling)
    return XRay(options.media or root, processor, is_extracted=not is_validated)


# ---- split ----------------------------------------------------------------------------------


def split(options: argparse.Namespace) -> None:
    """Divide an annotation file in two.

    Raises:
        ConfigError: If the share is none, or the folder has files of this name.
        DataError: If a record is no sample, or a file is missing.
    """
    from ovis_model.data.checks.splitting import split_samples  # noqa: PLC0415
    from ovis_model.data.schema import write_samples  # noqa: PLC0415

    if not 0 < options.holdout < 1:
        raise ConfigError(f"--holdout is a share between 0 and 1, not {options.holdout}")
    targets = [options.out / "train.jsonl", options.out / "holdout.jsonl"]
    for target in targets:
        _check_new(target)
    num_bad = _report_bad(_read(options.input), options)
    samples = [sample for sample in map(_parse, _read(options.input)) if sample is not None]
    digests = _digest_media(samples, options.media or options.input.parent)
    found = split_samples(samples, digests, fraction=options.holdout, seed=options.seed)
    for target, side in zip(targets, (found.train, found.holdout), strict=True):
        write_samples(target, side)
    sys.stdout.write(
        f"{len(samples) + num_bad:,} records in: {len(found.train):,} samples in {targets[0]}, "
        f"{len(found.holdout):,} in {targets[1]}, {num_bad:,} left out\n"
        f"{found.num_groups:,} groups that share no content; the largest has "
        f"{found.largest_group:,} samples\n"
    )


def _digest_media(samples: Iterable["Sample"], root: Path) -> dict[str, str]:
    from tqdm import tqdm  # noqa: PLC0415

    from ovis_model.data.media_files import MediaFiles  # noqa: PLC0415

    media = MediaFiles(root)
    digests: dict[str, str] = {}
    for sample in tqdm(samples, desc="digest", unit="sample", delay=2, mininterval=2):
        for name in sample.media:
            if name in digests:
                continue
            try:
                digests[name] = sha256_of_file(media.path_of(name))
            except (DataError, OSError) as error:
                raise DataError(
                    f"sample {sample.id!r}, file {name!r}: {error}. Without its content nobody "
                    "knows on which side it belongs; --media says where paths start"
                ) from error
    return digests


# ---- diff -----------------------------------------------------------------------------------


def diff(options: argparse.Namespace) -> None:
    """Tell what changed from one version to another."""
    from ovis_model.data.checks.diff import compare, read_version  # noqa: PLC0415

    versions = [
        read_version(path, media_root=options.media) for path in (options.before, options.after)
    ]
    found = compare(*versions)
    if options.json:
        _write_json(found.to_dict())
    else:
        sys.stdout.write(data_text.diff_as_text(found))


def _write_json(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values, ensure_ascii=True) + "\n")
