"""Small raw datasets: real images and clips, written where a test wants them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from moviepy import ImageSequenceClip
from PIL import Image


def picture(shade: int, *, side: int = 32) -> Image.Image:
    """Return a grey square with one corner marked, so that turning it shows."""
    pixels = np.full((side, side, 3), shade, dtype=np.uint8)
    pixels[: side // 4, : side // 4] = 255 - shade
    return Image.fromarray(pixels)


def write_picture(path: Path, shade: int, *, side: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(shade, side=side).save(path)
    return path


def write_clip(path: Path, shades: Sequence[int], *, fps: int = 4, side: int = 32) -> Path:
    """Write an mp4 whose frame i is one flat shade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [np.full((side, side, 3), shade, dtype=np.uint8) for shade in shades]
    clip = ImageSequenceClip(frames, fps=fps)
    clip.write_videofile(str(path), codec="libx264", audio=False, logger=None)
    clip.close()
    return path


def turns(*texts: str) -> list[dict[str, str]]:
    """Alternate human and gpt, beginning with human."""
    return [{"from": "gpt" if n % 2 else "human", "value": text} for n, text in enumerate(texts)]


def sample(sample_id: str, *texts: str, **media: Any) -> dict[str, Any]:
    return {"id": sample_id, **media, "conversations": turns(*texts)}


def write_annotations(folder: Path, samples: Sequence[Any]) -> Path:
    """Write the seed's file, annotations.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "annotations.json"
    path.write_text(json.dumps({"conversations": list(samples)}), encoding="utf-8")
    return path


def write_every_kind(folder: Path) -> list[dict[str, Any]]:
    """Write one good sample of every kind the seed names, with its media."""
    for name, shade in (("a", 10), ("b", 60), ("c", 110), ("d", 160), ("e", 210)):
        write_picture(folder / f"images/{name}.png", shade)
    write_clip(folder / "videos/clip.mp4", [0, 50, 100, 150, 200, 250])
    samples = [
        sample("single", "<image>\nWhich shade?", "10", image="images/a.png"),
        sample(
            "thinking",
            "<image>\nWhich shade?",
            "<think>\nRather dark.\n</think>\n\n60",
            image=["images/b.png"],
        ),
        sample(
            "several",
            "<image>\n<image>\nWhich is darker?",
            "The first.",
            image=["images/c.png", "images/d.png"],
        ),
        sample("clip", "<video>\nWhat happens?", "It brightens.", video="videos/clip.mp4"),
        sample(
            "frames",
            "<video>\nWhat happens?",
            "It brightens.",
            video=["images/a.png", "images/c.png", "images/e.png"],
        ),
        sample("text", "What is 1 + 1?", "2", image=None),
        sample(
            "grounding",
            "<image>\nWhere is <ref>the corner</ref>?",
            "<ref>the corner</ref><box>(0.000,0.000),(0.250,0.250)</box>",
            image="images/e.png",
        ),
        sample("twice", "What is 2 + 2?", "4", "And 1 more?", "5"),
    ]
    system = {"from": "system", "value": "Answer briefly."}
    samples.append({"id": "system", "conversations": [system, *turns("Hello?", "Hello.")]})
    write_annotations(folder, samples)
    return samples
