"""Step 2 of 5: frames out of videos, and every picture as a plain file named by its content.

Afterwards nobody needs to know what a video is or what cameras and scanners do to pictures:
a sample names 8-bit RGB or grey files, `media/<aa>/<sha256>.png` or `.jpg`, and the same
picture is stored once.

Files are decoded by processes that may be killed, and into a store that outlives this step's
outputs (`ovis_model.data.picture_store`): what was decoded once is never decoded again.
"""

import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ovis_model.config import ExtractConfig, FrameSampling
from ovis_model.data.decoding.pool import open_decoders
from ovis_model.data.extraction_inputs import MANIFEST, ExtractionInputs, Source, read_inputs
from ovis_model.data.media_files import INDEX
from ovis_model.data.picture_store import (
    STORE_ERROR,
    Extracted,
    PictureStore,
    Request,
    Size,
    VideoRecipe,
)
from ovis_model.data.reasons import REASONS
from ovis_model.data.report import ExtractionReport, QuarantinedSample
from ovis_model.data.schema import Fit, Sample, write_samples
from ovis_model.data.shards import pack
from ovis_model.errors import DataError, list_examples
from ovis_model.processing.frame_sampling import SAMPLER_NAME
from ovis_model.progress import WatchedBar
from ovis_model.reports import sha256_of_file, write_text

log = logging.getLogger(__name__)

PARTS = ("train", "holdout")
FRAMES = "frames.jsonl"
#: In front of a picture's name in the store it is the name that samples give it.
_MEDIA = "media/"
#: So many quarantined samples stand in the report; all of them stand in the ledger.
_MAX_REPORTED = 1000


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why one file did not become pictures."""

    path: str
    code: str
    detail: str

    def __str__(self) -> str:
        named = self.path in self.detail
        return self.detail if named else f"file {self.path!r}: {self.detail}"


@dataclass
class _Outcome:
    """What became of the files, by key."""

    made: dict[str, Extracted] = field(default_factory=dict)
    failed: dict[str, _Failure] = field(default_factory=dict)
    num_reused: int = 0
    num_decoded: int = 0


@dataclass
class _Tally:
    """What was written, counted on the way."""

    num_ok: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    num_read: int = 0
    num_images: int = 0
    num_videos: int = 0
    num_frames: int = 0
    num_quarantined: int = 0
    quarantined: list[QuarantinedSample] = field(default_factory=list)
    #: Every picture with its pixel size, in the order of first use.
    pictures: dict[str, Size] = field(default_factory=dict)
    #: Lines of frames.jsonl by key, in the order of first use.
    videos: dict[str, str] = field(default_factory=dict)

    @property
    def bad_fraction(self) -> float:
        return self.num_quarantined / self.num_read if self.num_read else 0.0


def extract(  # noqa: PLR0913 - a step's paths are its interface
    config: ExtractConfig,
    *,
    validated: Path,
    raw_data: Path,
    output: Path,
    store: Path,
    ledger: Path | None = None,
) -> ExtractionReport:
    """Write every sample anew, with plain pictures in place of whatever it named.

    A file that cannot be decoded is no reason to stop: the samples that name it are set aside.

    Args:
        config: How many frames stand for a video, who decodes, how much may fail.
        validated: What `ovis_model.data.validation.validate` wrote.
        raw_data: The folder whose media were validated.
        output: Folder for train.jsonl, holdout.jsonl, frames.jsonl, manifest.json and media/ or
            shards; gone after a failure.
        store: Folder of pictures that outlives `output`; see `ovis_model.data.picture_store`.
        ledger: File for one line per sample and its verdict, written whether extraction passes
            or not; None writes none.

    Raises:
        DataError: Naming samples, files and reasons, if more of them fail than
            `config.max_bad_fraction` allows; or if `validated` is not what validation wrote.
    """
    partial = output.with_name(output.name + ".partial")
    for stale in (output, partial):
        shutil.rmtree(stale, ignore_errors=True)
    if ledger is not None:
        ledger.unlink(missing_ok=True)
    inputs = read_inputs(config, validated)
    # Not relative: workers of a cluster are at home elsewhere.
    pictures = PictureStore(store.resolve())
    outcome = _decode(inputs, raw_data.resolve(), pictures)
    partial.mkdir(parents=True)
    tally = _write_samples(inputs, outcome, partial, ledger)
    _check_bad_fraction(config, tally, outcome, partial, ledger)
    shards = _write_media(config, tally, pictures, partial)
    report = _report(config, tally, outcome, pictures, len(shards))
    _write_manifest(partial, validated, report, tally, shards)
    partial.rename(output)
    log.info(
        "%d images and %d videos became %d pictures; %d files were decoded, %d were known; "
        "%d samples = %d written + %d quarantined",
        *(report.num_images, report.num_videos, report.num_unique_media),
        *(report.num_decoded, report.num_reused),
        *(tally.num_read, sum(tally.num_ok.values()), tally.num_quarantined),
    )
    return report


def _decode(inputs: ExtractionInputs, raw_data: Path, store: PictureStore) -> _Outcome:
    """Bring the pictures of every file into the store, decoding those it does not hold."""
    store.sweep()
    sources: dict[str, Source] = {}
    for part in PARTS:
        for _, named in inputs.samples(part):
            for source in named:
                sources.setdefault(source.key, source)
    outcome = _Outcome()
    todo = []
    for source in sources.values():
        if (known := store.get(source.key)) is None:
            todo.append(source)
        else:
            outcome.made[source.key] = known
    outcome.num_reused, outcome.num_decoded = len(outcome.made), len(todo)
    # Videos first: they take longest.
    todo.sort(key=lambda source: source.video is None)
    if todo:
        _run(inputs, raw_data, store, todo, outcome)
    return outcome


def _run(
    inputs: ExtractionInputs,
    raw_data: Path,
    store: PictureStore,
    todo: list[Source],
    outcome: _Outcome,
) -> None:
    config = inputs.config
    requests = (
        Request(
            root=raw_data,
            path=source.path,
            sha256=source.sha256,
            key=source.key,
            store=store.root,
            limits=inputs.limits,
            video=source.video,
        ).to_dict()
        for source in todo
    )
    interval = 0.5 if sys.stderr.isatty() else 10.0
    bar = WatchedBar(total=len(todo), desc="extract", unit="file", mininterval=interval)
    with (
        bar,
        open_decoders(
            inputs.limits, workers=config.workers, dask_scheduler=config.dask_scheduler
        ) as decoders,
    ):
        for source, reply in zip(todo, decoders.run("extract", requests), strict=True):
            bar.update()
            if reply.value is None:
                outcome.failed[source.key] = _Failure(
                    source.path, reply.problem or "unreadable_media", reply.detail or "no reason"
                )
            elif STORE_ERROR in reply.value:
                raise DataError(
                    f"pictures cannot be written to {store.root}: {reply.value[STORE_ERROR]}; "
                    "make room and run again: what is finished is not done a second time"
                )
            else:
                outcome.made[source.key] = Extracted.from_dict(reply.value)


def _write_samples(
    inputs: ExtractionInputs, outcome: _Outcome, folder: Path, ledger: Path | None
) -> _Tally:
    """Write the samples whose files became pictures, and a ledger line for every one."""
    tally = _Tally()
    path = folder / "ledger.partial" if ledger is None else _partial(ledger)
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        for part in PARTS:
            written = write_samples(
                folder / f"{part}.jsonl", _good_samples(inputs, part, outcome, tally, lines)
            )
            tally.num_ok[part] = written
    if ledger is None:
        path.unlink()
    else:
        path.replace(ledger)
    num_ok = sum(tally.num_ok.values())
    assert tally.num_read == num_ok + tally.num_quarantined, (
        f"{tally.num_read} samples came in, {num_ok} were written and {tally.num_quarantined} "
        "quarantined"
    )
    write_text(folder / FRAMES, "".join(tally.videos.values()))
    return tally


def _partial(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".partial")


def _good_samples(
    inputs: ExtractionInputs, part: str, outcome: _Outcome, tally: _Tally, ledger: TextIO
) -> Iterator[Sample]:
    for number, (sample, sources) in enumerate(inputs.samples(part), start=1):
        place = f"{part}.jsonl, line {number}"
        reasons: dict[str, str] = {}
        for source in sources:
            if (failure := outcome.failed.get(source.key)) is not None:
                reasons.setdefault(failure.code, str(failure))
        ledger.write(_ledger_line(sample, part, place, reasons))
        tally.num_read += 1
        if reasons:
            tally.num_quarantined += 1
            if len(tally.quarantined) < _MAX_REPORTED:
                tally.quarantined.append(
                    QuarantinedSample(id=sample.id, place=place, reasons=reasons)
                )
            continue
        made = {source.path: outcome.made[source.key] for source in sources}
        _count(tally, sample, sources, made)
        yield _rename_media(sample, made)


def _ledger_line(sample: Sample, part: str, place: str, reasons: Mapping[str, str]) -> str:
    """Write a verdict as validation's ledger does."""
    line: dict[str, Any] = {"id": sample.id, "place": place, "part": part, "verdict": "ok"}
    if reasons:
        line["verdict"] = "quarantined"
        line["reasons"] = [
            {"code": code, "detail": detail, "remedy": REASONS[code].remedy}
            for code, detail in reasons.items()
        ]
    return json.dumps(line, ensure_ascii=False) + "\n"


def _count(
    tally: _Tally, sample: Sample, sources: list[Source], made: Mapping[str, Extracted]
) -> None:
    tally.num_images += len(sample.image)
    if sample.video is not None:
        tally.num_videos += 1
        tally.num_frames += sum(len(one.pictures) for one in made.values())
    for source in sources:
        one = made[source.path]
        tally.pictures.update(zip(map(_media_name, one.pictures), one.sizes, strict=True))
        if source.video is not None and source.key not in tally.videos:
            tally.videos[source.key] = _frames_line(source.path, source.video, one)


def _frames_line(path: str, video: VideoRecipe, made: Extracted) -> str:
    """Say when the frames of a video are shown, in seconds from its first frame."""
    part = {"start": video.start, "end": video.end}
    line = {
        "source": path,
        **{name: seconds for name, seconds in part.items() if seconds is not None},
        "frames": list(map(_media_name, made.pictures)),
        "seconds": made.seconds,
    }
    return json.dumps(line, ensure_ascii=False) + "\n"


def _media_name(name: str) -> str:
    return _MEDIA + name


def _rename_media(sample: Sample, made: Mapping[str, Extracted]) -> Sample:
    """Name pictures instead of files; what was said about frames and times is done."""
    image = tuple(_media_name(made[path].pictures[0]) for path in sample.image)
    video: tuple[str, ...] | None
    if isinstance(sample.video, str):
        video = tuple(map(_media_name, made[sample.video].pictures))
    else:
        video = tuple(_media_name(made[path].pictures[0]) for path in sample.frames) or None
    fit = None if sample.fit is None else sample.fit.model_copy(update={"max_frames": None})
    return sample.model_copy(
        update={
            "image": image,
            "video": video,
            "video_start": None,
            "video_end": None,
            "fit": None if fit == Fit() else fit,
        }
    )


def _check_bad_fraction(
    config: ExtractConfig, tally: _Tally, outcome: _Outcome, partial: Path, ledger: Path | None
) -> None:
    # Even where much is forgiven, something must be left to learn from.
    nothing_left = outcome.failed and not tally.num_ok["train"]
    if tally.bad_fraction <= config.max_bad_fraction and not nothing_left:
        return
    shutil.rmtree(partial)
    where = "" if ledger is None else f"What to do about each is in {ledger}. "
    examples = [
        f"sample {sample.id!r}, {'; '.join(sample.reasons.values())}"
        for sample in tally.quarantined
    ]
    counts = f"{tally.num_quarantined} of {tally.num_read} samples ({tally.bad_fraction:.1%})"
    raise DataError(
        f"{list_examples(examples)}. The files of {counts} cannot be extracted, and "
        f"extract.max_bad_fraction allows {config.max_bad_fraction:.1%}"
        f"{', but none is left to train on' if nothing_left else ''}. {where}Fix or remove them, "
        "or raise extract.max_bad_fraction, then run `dvc repro` again; what is finished is not "
        "done a second time"
    )


def _write_media(
    config: ExtractConfig, tally: _Tally, store: PictureStore, folder: Path
) -> list[Path]:
    """Write the pictures and return the shards, if they are packed into some."""

    def path_of(name: str) -> Path:
        return store.path_of(name.removeprefix(_MEDIA))

    if config.shards:
        return pack(tally.pictures, lambda name: path_of(name).read_bytes(), folder)
    for name in tally.pictures:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(path_of(name), target)
    return []


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, target)


def _report(
    config: ExtractConfig, tally: _Tally, outcome: _Outcome, store: PictureStore, num_shards: int
) -> ExtractionReport:
    sampling = FrameSampling(min_frames=config.min_frames, max_frames=config.max_frames)
    paths = (store.path_of(name.removeprefix(_MEDIA)) for name in tally.pictures)
    return ExtractionReport(
        num_samples=tally.num_ok,
        num_quarantined=tally.num_quarantined,
        bad_fraction=tally.bad_fraction,
        max_bad_fraction=config.max_bad_fraction,
        num_images=tally.num_images,
        num_videos=tally.num_videos,
        num_frames=tally.num_frames,
        num_unique_media=len(tally.pictures),
        media_bytes=sum(path.stat().st_size for path in paths),
        num_shards=num_shards,
        frame_sampling={"name": SAMPLER_NAME, **sampling.model_dump()},
        quarantined=tally.quarantined,
        num_decoded=outcome.num_decoded,
        num_reused=outcome.num_reused,
    )


def _write_manifest(
    folder: Path, validated: Path, report: ExtractionReport, tally: _Tally, shards: list[Path]
) -> None:
    """Write what came out; each picture's own digest is its name."""
    rows = {f"{part}.jsonl": count for part, count in tally.num_ok.items()}
    rows[FRAMES] = len(tally.videos)
    if shards:
        rows[INDEX] = len(tally.pictures)
    manifest = {
        "frame_sampling": report.frame_sampling,
        "validated": sha256_of_file(validated / MANIFEST),
        "files": {
            name: {"sha256": sha256_of_file(folder / name), "rows": count}
            for name, count in rows.items()
        },
        "shards": {
            path.name: {"sha256": sha256_of_file(path), "bytes": path.stat().st_size}
            for path in shards
        },
        "num_media": report.num_unique_media,
        "media_bytes": report.media_bytes,
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
