"""A small world to draw samples from, and ways in which it can drift."""

from pathlib import Path

import numpy as np
from PIL import Image

from ovis_model.data.media_files import MediaFiles
from ovis_model.data.schema import Sample, Turn
from ovis_model.drift.profile import Profile, measure

OBJECTS = ["cup", "dog", "tree", "boat", "lamp", "chair", "cloud", "horse", "bridge", "spoon"]
#: The same question in letters of another script.
CYRILLIC = str.maketrans("abcdeghiklmnoprstuvxyzwWIH", "абцдегхиклмнопрстувхызвВИХ")


def draw_samples(  # noqa: PLR0913 - each way to drift has a name
    folder: Path,
    count: int,
    *,
    seed: int,
    brighter: int = 0,
    mirrored: bool = False,
    longer: bool = False,
    yes: float = 0.5,
    thinking: float = 0.5,
    cyrillic: bool = False,
) -> list[Sample]:
    """Draw samples, each with a picture of its own.

    Args:
        folder: Where the pictures are written.
        count: How many samples.
        seed: Of everything.
        brighter: Grey levels on top.
        mirrored: Whether pictures are darker on the right instead of on the left.
        longer: Whether questions have more words.
        yes: Share of answers that are "yes".
        thinking: Share of answers with a thought.
        cyrillic: Whether questions are written in Cyrillic.
    """
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        name = f"{seed}_{number}.png"
        width = int(rng.integers(8, 24))
        grey = rng.integers(0, 60, size=(12, width)) + rng.integers(0, 120)
        grey += np.linspace(0, 15, width, dtype=int)[:: -1 if mirrored else 1]
        Image.fromarray((grey + brighter).clip(0, 255).astype(np.uint8)).save(folder / name)
        one, other = rng.choice(OBJECTS, size=2, replace=False)
        more = f" next to the {other}, on the left side" if longer or rng.random() < 0.3 else ""
        question = f"Is there a {one}{more}?"
        answer = "yes" if rng.random() < yes else "no"
        thought = "I look. " * int(rng.integers(1, 9))
        if rng.random() < thinking:
            answer = f"<think>\n{thought}\n</think>\n\n{answer}"
        if cyrillic:
            question = question.translate(CYRILLIC)
        turns = (Turn(role="human", value=f"<image>\n{question}"), Turn(role="gpt", value=answer))
        samples.append(Sample(id=f"{seed}_{number}", image=(name,), conversations=turns))
    return samples


def draw_profile(folder: Path, count: int, *, seed: int, **how) -> Profile:
    """Draw samples and measure them."""
    samples = draw_samples(folder, count, seed=seed, **how)
    return measure(samples, MediaFiles(folder), data=f"{seed} {how}")
