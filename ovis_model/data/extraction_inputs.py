"""What extraction has to do: the validated samples, their files, and each file's recipe."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ovis_model.config import ExtractConfig, FrameSampling, MediaLimits
from ovis_model.data.picture_store import VideoRecipe, entry_key
from ovis_model.data.schema import Sample, read_samples
from ovis_model.errors import DataError
from ovis_model.processing.frame_sampling import sample_frame_indices
from ovis_model.reports import sha256_of_file

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Source:
    """One file that a sample names, and what is to become of it.

    Attributes:
        path: As samples spell it, below the folder of the raw data.
        sha256: Of its bytes when it was validated.
        key: Its name in the picture store; two files of equal bytes and recipe have one.
        video: Which of its frames are taken; None for an image.
    """

    path: str
    sha256: str
    key: str
    video: VideoRecipe | None


@dataclass(frozen=True)
class ExtractionInputs:
    """What validation wrote, apart from the samples: those are streamed.

    Attributes:
        folder: Where it is.
        config: What to make of it.
        limits: What a file may cost, as it was validated.
        digests: sha256 of each file when it was validated, as bytes: there may be millions.
    """

    folder: Path
    config: ExtractConfig
    limits: MediaLimits
    digests: dict[str, bytes]

    def samples(self, part: str) -> Iterator[tuple[Sample, list[Source]]]:
        """Yield each sample, its frames already chosen, with its files in order.

        Args:
            part: "train" or "holdout".
        """
        for sample in read_samples(self.folder / f"{part}.jsonl"):
            sampling = self._sampling(sample)
            thinned = _take_frames(sample, sampling)
            sources = [self._source(path, None) for path in thinned.image + thinned.frames]
            if isinstance(thinned.video, str):
                sources.append(self._source(thinned.video, self._recipe(sample, sampling)))
            yield thinned, sources

    def _sampling(self, sample: Sample) -> FrameSampling:
        most = self.config.max_frames
        if sample.fit is not None and sample.fit.max_frames is not None:
            most = min(most, sample.fit.max_frames)
        return FrameSampling(min_frames=min(self.config.min_frames, most), max_frames=most)

    def _recipe(self, sample: Sample, sampling: FrameSampling) -> VideoRecipe:
        return VideoRecipe(
            reader=self.config.video_reader,
            min_frames=sampling.min_frames,
            max_frames=sampling.max_frames,
            start=sample.video_start,
            end=sample.video_end,
        )

    def _source(self, path: str, video: VideoRecipe | None) -> Source:
        sha256 = self.digests[path].hex()
        return Source(path, sha256, entry_key(sha256, video), video)


def read_inputs(config: ExtractConfig, validated: Path) -> ExtractionInputs:
    """Read what validation says about its files, after making sure that nobody touched them.

    Raises:
        DataError: If the folder is missing, or is not what validation wrote.
    """
    path = validated / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files, limits = manifest["files"], manifest.get("limits", {})
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} is missing or unreadable ({error}); run `dvc repro validate`"
        ) from error
    for name, entry in files.items():
        if sha256_of_file(validated / name) != entry["sha256"]:
            raise DataError(
                f"{validated / name} is not what validation wrote (its sha256 differs from "
                f"{path}); delete {validated} and run `dvc repro`"
            )
    digests = dict(_read_digests(validated / "media.jsonl"))
    parsed = MediaLimits.parse(limits, where=f"{path}, limits")
    return ExtractionInputs(validated, config, parsed, digests)


def _read_digests(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            yield entry["path"], bytes.fromhex(entry["sha256"])


def _take_frames(sample: Sample, sampling: FrameSampling) -> Sample:
    """Thin a video given as frames as a video in one file is thinned when it is decoded."""
    if not sample.frames:
        return sample
    indices = sample_frame_indices(
        len(sample.frames), min_frames=sampling.min_frames, max_frames=sampling.max_frames
    )
    return sample.model_copy(update={"video": tuple(sample.frames[i] for i in indices)})
