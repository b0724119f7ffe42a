"""V1 and V2: frames out of a video, against moviepy.

What moviepy's users write, in our words: a clip, and `get_frame` at the middle of the moment at
which each wanted frame is shown.  V1 decodes; V2 is the second time that the same frames are
needed, when extraction has left them as PNG files.

Clips are generated: a moving test card under noise, so that encoders have work to do.
"""

import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import av
import numpy as np
from moviepy import VideoFileClip
from moviepy.config import FFMPEG_BINARY
from PIL import Image

from benchmarks.data.cache import cache_folder
from benchmarks.suite import Agreement, Trial
from benchmarks.workload import digest
from ovis_model.config import FrameSampling
from ovis_model.data.media.frames import read_frames
from ovis_model.data.media.images import load_rgb
from ovis_model.processing.frame_sampling import sample_frame_indices
from ovis_model.reports import sha256_of_file

#: Frames per second, frames from one keyframe to the next, frames in a row that refer to others
#: and are referred to by none.
RATE, GOP, B_FRAMES = 30, 250, 3
#: Megabits per second of a 1920 x 1080 clip; smaller ones get their share.
MEGABITS = 6.0

Frames = Sequence[Image.Image]


def build_frames(
    seed: int, *, num_frames: int, seconds: float = 60.0, size: tuple[int, int] = (1920, 1080)
) -> Trial:
    """Make V1's trial: this many frames of a generated H.264 clip."""
    clip = generated_clip(seed, seconds=seconds, size=size)
    count = round(seconds * RATE)
    indices = sample_frame_indices(count, min_frames=num_frames, max_frames=num_frames)
    return Trial(
        variants={
            "moviepy": partial(with_moviepy, clip, indices),
            "PyAV, every frame decoded": partial(with_pyav_decoding_all, clip, indices),
            "ours": partial(ours, clip, num_frames),
        },
        compare=same_frames,
        sha256=digest(sha256_of_file(clip), num_frames),
        result_bytes=num_frames * size[0] * size[1] * 3,
    )


def build_second_read(
    seed: int, *, num_frames: int, seconds: float = 60.0, size: tuple[int, int] = (1920, 1080)
) -> Trial:
    """Make V2's trial: the frames of V1 once more, from the files that extraction wrote."""
    clip = generated_clip(seed, seconds=seconds, size=size)
    count = round(seconds * RATE)
    indices = sample_frame_indices(count, min_frames=num_frames, max_frames=num_frames)
    files = extracted_frames(clip, num_frames)
    return Trial(
        variants={
            "moviepy": partial(with_moviepy, clip, indices),
            "ours": partial(ours_again, files),
        },
        compare=same_frames,
        sha256=digest(sha256_of_file(clip), num_frames),
        result_bytes=num_frames * size[0] * size[1] * 3,
    )


def with_moviepy(clip: Path, indices: Sequence[int]) -> Frames:
    """Return frames as moviepy's users get them."""
    with VideoFileClip(str(clip), audio=False) as video:
        return [Image.fromarray(video.get_frame((i + 0.5) / video.fps)) for i in indices]


def with_pyav_decoding_all(clip: Path, indices: Sequence[int]) -> Frames:
    """Return frames as the shortest program with PyAV gets them."""
    wanted = set(indices)
    found: dict[int, Image.Image] = {}
    with av.open(str(clip)) as video:
        stream = video.streams.video[0]
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(video.decode(stream)):
            if number in wanted:
                found[number] = Image.fromarray(
                    frame.to_ndarray(format="rgb24", interpolation="BICUBIC", threads=1)
                )
    return [found[i] for i in indices]


def ours(clip: Path, num_frames: int) -> Frames:
    """Return frames as extraction, training and inference get them."""
    return read_frames(clip, FrameSampling(min_frames=num_frames, max_frames=num_frames))


def ours_again(files: Sequence[Path]) -> Frames:
    """Return frames as training gets them after extraction."""
    return [load_rgb(file) for file in files]


def same_frames(expected: Frames, found: Frames) -> Agreement:
    """Ask for the same number of frames with the same bytes."""
    if len(expected) != len(found):
        return Agreement(False, f"{len(found)} of {len(expected)} frames")
    different = sum(
        not np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(expected, found, strict=True)
    )
    if different:
        return Agreement(False, f"{different} of {len(expected)} frames differ")
    return Agreement(True, "bitwise")


def generated_clip(seed: int, *, seconds: float, size: tuple[int, int]) -> Path:
    """Write the clip of a seed, unless an earlier process of this benchmark has."""
    width, height = size
    path = cache_folder() / f"{width}x{height}-{seconds:g}s-{seed}.mp4"
    if path.exists():
        return path
    partial_path = path.with_suffix(f".{os.getpid()}.mp4")
    bits = MEGABITS * 1e6 * width * height / (1920 * 1080)
    source = f"testsrc2=s={width}x{height}:r={RATE}:d={seconds:g}"
    _run_ffmpeg(
        *("-f", "lavfi", "-i", f"{source},noise=alls=12:allf=t:all_seed={seed + 1}"),
        *("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-threads", "2"),
        *("-b:v", f"{bits:.0f}", "-g", str(GOP), "-keyint_min", str(GOP), "-sc_threshold", "0"),
        *("-bf", str(B_FRAMES), str(partial_path)),
    )
    return partial_path.replace(path)


def extracted_frames(clip: Path, num_frames: int) -> list[Path]:
    """Write the sampled frames as extraction does, unless an earlier process has."""
    folder = clip.with_suffix("")
    folder.mkdir(exist_ok=True)
    files = [folder / f"{number} of {num_frames}.png" for number in range(num_frames)]
    if not all(file.exists() for file in files):
        for file, frame in zip(files, ours(clip, num_frames), strict=True):
            partial_path = file.with_suffix(f".{os.getpid()}.png")
            frame.save(partial_path, compress_level=1)  # as ovis_model.data.picture_store does
            partial_path.replace(file)
    return files


def _run_ffmpeg(*arguments: str) -> None:
    subprocess.run([FFMPEG_BINARY, "-loglevel", "error", "-y", *arguments], check=True)
