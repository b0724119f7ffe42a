"""Step 2 of 5: frames out of videos, and every picture as a plain file named by its content.

Afterwards nobody needs to know what a video is or what cameras and scanners do to pictures:
a sample names 8-bit RGB or grey files, `media/<aa>/<sha256>.png` or `.jpg`, and the same
picture is stored once.
"""

import contextlib
import ctypes
import hashlib
import io
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ovis_model.config import ExtractConfig, FrameSampling
from ovis_model.data.frames import read_frames
from ovis_model.data.images import load_image, plain_extension, to_rgb
from ovis_model.data.report import ExtractionReport
from ovis_model.data.schema import Sample, read_samples, write_samples
from ovis_model.errors import DataError
from ovis_model.processing.frame_sampling import SAMPLER_NAME, sample_frame_indices
from ovis_model.reports import sha256_of_file, write_text

log = logging.getLogger(__name__)

PARTS = ("train", "holdout")
#: Files handed to a worker process at once.
_CHUNK = 16
#: Below this many files, starting processes takes longer than doing the work here.
_TOO_FEW_FOR_PROCESSES = 64
#: zlib's fastest level: photographs barely shrink further, and the bytes stay the same.
_PNG_LEVEL = 1


@dataclass(frozen=True)
class _Job:
    """One source file to turn into pictures.

    Attributes:
        sample_id: The first sample that names it, for messages.
        sha256: What the file's bytes were when they were validated.
    """

    path: str
    sha256: str
    is_video: bool
    sample_id: str


@dataclass(frozen=True)
class _Workshop:
    """What every job needs to know; sent to worker processes."""

    raw_data: Path
    output: Path
    sampling: FrameSampling

    def do(self, job: _Job) -> tuple[str, ...]:
        """Write the pictures of one file and return their paths relative to the output.

        Raises:
            DataError: Naming sample and file.
        """
        source = self.raw_data / job.path
        try:
            _check_unchanged(source, job.sha256)
            if job.is_video:
                frames = read_frames(source, self.sampling)
                return tuple(self._store(_png(frame), "png") for frame in frames)
            image = load_image(source)
            extension = plain_extension(source, image)
            if extension is not None:
                return (self._store(source.read_bytes(), extension),)
            return (self._store(_png(to_rgb(image)), "png"),)
        except (DataError, OSError) as error:
            raise DataError(f"sample {job.sample_id!r}, file {job.path!r}: {error}") from error

    def _store(self, content: bytes, extension: str) -> str:
        digest = hashlib.sha256(content).hexdigest()
        name = f"media/{digest[:2]}/{digest}.{extension}"
        target = self.output / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            # Two processes may meet at the same picture; each renames a file of its own.
            own = target.with_name(f"{target.name}.{os.getpid()}")
            own.write_bytes(content)
            own.replace(target)
        return name


def _check_unchanged(source: Path, sha256: str) -> None:
    if sha256_of_file(source) != sha256:
        raise DataError("it changed after it was validated; run `dvc repro` to validate anew")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def extract(
    config: ExtractConfig, *, validated: Path, raw_data: Path, output: Path
) -> ExtractionReport:
    """Write every sample anew, with plain pictures in place of whatever it named.

    Args:
        config: How many frames stand for a video, and how many processes work.
        validated: What `ovis_model.data.validation.validate` wrote.
        raw_data: The folder whose media were validated.
        output: Folder for train.jsonl, holdout.jsonl, media/ and manifest.json; gone after a
            failure.

    Raises:
        DataError: Naming sample and file, if one cannot be read or is not what was validated.
    """
    partial = output.with_name(output.name + ".partial")
    for stale in (output, partial):
        shutil.rmtree(stale, ignore_errors=True)
    samples = _read_validated(validated)
    sampling = FrameSampling(min_frames=config.min_frames, max_frames=config.max_frames)
    taken = {part: [_take_frames(s, sampling) for s in samples[part]] for part in PARTS}
    everything = [sample for part in PARTS for sample in taken[part]]
    jobs = _list_jobs(everything, _read_digests(validated / "media.jsonl"))
    partial.mkdir(parents=True)
    pictures = _run(_Workshop(raw_data, partial, sampling), jobs, workers=config.workers)
    for part in PARTS:
        write_samples(partial / f"{part}.jsonl", (_rename_media(s, pictures) for s in taken[part]))
    report = _report(taken, pictures, partial, sampling)
    _write_manifest(partial, validated, report)
    partial.rename(output)
    log.info(
        "%d images and %d videos became %d files",
        *(report.num_images, report.num_videos, report.num_unique_media),
    )
    return report


def _read_validated(validated: Path) -> dict[str, list[Sample]]:
    """Read both parts, after making sure that nobody touched them."""
    path = validated / "manifest.json"
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is missing or unreadable ({error}); run `dvc repro validate`"
        ) from error
    for name, entry in files.items():
        if sha256_of_file(validated / name) != entry["sha256"]:
            raise DataError(
                f"{validated / name} is not what validation wrote (its sha256 differs from "
                f"{path}); delete {validated} and run `dvc repro`"
            )
    return {part: list(read_samples(validated / f"{part}.jsonl")) for part in PARTS}


def _read_digests(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8") as file:
        entries = [json.loads(line) for line in file]
    return {entry["path"]: entry["sha256"] for entry in entries}


def _take_frames(sample: Sample, sampling: FrameSampling) -> Sample:
    """Thin a video given as frames as a video in one file is thinned when it is decoded."""
    if not sample.frames:
        return sample
    indices = sample_frame_indices(
        len(sample.frames), min_frames=sampling.min_frames, max_frames=sampling.max_frames
    )
    return sample.model_copy(update={"video": tuple(sample.frames[i] for i in indices)})


def _list_jobs(samples: Iterable[Sample], digests: dict[str, str]) -> list[_Job]:
    """List every source file once, videos first: they take longest."""
    jobs: dict[str, _Job] = {}
    for sample in samples:
        for path in sample.media:
            is_video = path == sample.video
            jobs.setdefault(path, _Job(path, digests[path], is_video, sample.id))
    return sorted(jobs.values(), key=lambda job: not job.is_video)


def _run(workshop: _Workshop, jobs: Sequence[_Job], *, workers: int) -> dict[str, tuple[str, ...]]:
    """Do all jobs, in processes where that pays, and return the pictures of each path."""
    with _done(workshop, jobs, workers) as results:
        terminal = sys.stderr.isatty()
        progress = tqdm(
            results,
            total=len(jobs),
            desc="extract",
            unit="file",
            mininterval=0.5 if terminal else 10.0,
        )
        return {job.path: names for job, names in zip(jobs, progress, strict=True)}


@contextlib.contextmanager
def _done(
    workshop: _Workshop, jobs: Sequence[_Job], workers: int
) -> Iterator[Iterator[tuple[str, ...]]]:
    if workers == 1 or len(jobs) < _TOO_FEW_FOR_PROCESSES:
        yield map(workshop.do, jobs)
        return
    # Not forked: a fork copies locks of threads that do not exist in the child.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
        try:
            yield pool.map(workshop.do, jobs, chunksize=_CHUNK)
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl+C to the parent, and never outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _rename_media(sample: Sample, pictures: dict[str, tuple[str, ...]]) -> Sample:
    image = tuple(pictures[path][0] for path in sample.image)
    if isinstance(sample.video, str):
        return sample.model_copy(update={"video": pictures[sample.video]})
    frames = tuple(pictures[path][0] for path in sample.frames) or None
    return sample.model_copy(update={"image": image, "video": frames})


def _report(
    taken: dict[str, list[Sample]],
    pictures: dict[str, tuple[str, ...]],
    folder: Path,
    sampling: FrameSampling,
) -> ExtractionReport:
    everything = [sample for part in PARTS for sample in taken[part]]
    videos = [sample for sample in everything if sample.video is not None]
    unique = {name for names in pictures.values() for name in names}
    frames = (pictures[s.video] if isinstance(s.video, str) else s.frames for s in videos)
    return ExtractionReport(
        num_samples={part: len(taken[part]) for part in PARTS},
        num_images=sum(len(sample.image) for sample in everything),
        num_videos=len(videos),
        num_frames=sum(map(len, frames)),
        num_unique_media=len(unique),
        media_bytes=sum((folder / name).stat().st_size for name in unique),
        frame_sampling={"name": SAMPLER_NAME, **sampling.model_dump()},
    )


def _write_manifest(folder: Path, validated: Path, report: ExtractionReport) -> None:
    """Write what came out; each picture's own digest is its name."""
    manifest = {
        "frame_sampling": report.frame_sampling,
        "validated": sha256_of_file(validated / "manifest.json"),
        "files": {
            f"{part}.jsonl": {
                "sha256": sha256_of_file(folder / f"{part}.jsonl"),
                "rows": report.num_samples[part],
            }
            for part in PARTS
        },
        "num_media": report.num_unique_media,
        "media_bytes": report.media_bytes,
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
