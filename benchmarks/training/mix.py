"""A seeded mix of samples as fine-tuning sets have them, told by size alone.

Text, photographs, charts, pages, screenshots, crops and several pictures; a quarter of the
answers think first.  Nobody's data: the shares are those of the reference notes on performance.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ovis_model.data.dataset import Extent
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.processing.visual_tokens import count_visual_tokens

#: Tokens that no sample exceeds, and those the longest question leaves to its pictures.
MAX_TOKENS = 6000
MIN_PIXELS, MAX_PIXELS = 448 * 448, 1792 * 1792
#: The language model of the 2B: its vocabulary and width decide what a sample costs.
SMALL_RELEASED_MODEL = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


@dataclass(frozen=True)
class Kind:
    """One sort of sample: its share, typical picture size in pixels, and how sizes spread."""

    share: float
    size: tuple[int, int] | None = None
    spread: float = 0.0
    most_pictures: int = 1


KINDS = (
    Kind(0.10),
    Kind(0.30, (640, 480), 0.15),
    Kind(0.25, (850, 700), 0.35),
    Kind(0.15, (1240, 1650), 0.2),
    Kind(0.10, (1500, 900), 0.25),
    Kind(0.05, (448, 448), 0.05),
    Kind(0.05, (640, 560), 0.25, most_pictures=5),
)


def config() -> Ovis2_5Config:
    """Return the configuration of the 2B."""
    return Ovis2_5Config(llm_config=dict(SMALL_RELEASED_MODEL))


def extents(count: int, seed: int = 0) -> list[Extent]:
    """Draw the sizes of so many samples."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(len(KINDS), count, p=[kind.share for kind in KINDS])
    most = np.array([kind.most_pictures for kind in KINDS])[kinds]
    pictures = np.where(most > 1, rng.integers(2, 6, count), 1)
    grids = _grids(kinds, rng)
    questions = np.clip(rng.lognormal(4.6, 0.8, count), 20, 2000)
    thoughts = np.clip(rng.lognormal(6.3, 0.6, count), 50, 3000) * (rng.random(count) < 0.25)
    answers = np.clip(rng.lognormal(4.6, 0.9, count), 5, 2000) + thoughts
    drawn = zip(
        kinds.tolist(),
        pictures.tolist(),
        grids.tolist(),
        questions.astype(int).tolist(),
        answers.astype(int).tolist(),
        strict=True,
    )
    return [_extent(*one) for one in drawn]


def _grids(kinds: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw rows and columns of patches of a picture of each sample, [count, 2]."""
    sizes = np.array([kind.size or (1, 1) for kind in KINDS], dtype=float)[kinds]
    spreads = np.array([kind.spread for kind in KINDS])[kinds]
    sizes *= np.exp(rng.standard_normal(len(kinds)) * spreads)[:, None]
    shape = np.exp(rng.standard_normal(len(kinds)) * 0.15)
    sizes *= np.stack([shape, 1 / shape], axis=1)
    area = sizes.prod(axis=1)
    sizes *= np.sqrt(np.clip(area, MIN_PIXELS, MAX_PIXELS) / area)[:, None]
    return 2 * np.maximum(1, np.rint(sizes[:, ::-1] / 32)).astype(np.int64)


def _extent(kind: int, pictures: int, grid: list[int], question: int, answer: int) -> Extent:
    """Make one sample; pictures and answer give way where it would be too long."""
    shown = (1, grid[0], grid[1])
    each = count_visual_tokens(shown) if KINDS[kind].size else 0
    room = MAX_TOKENS - question
    pictures = min(pictures, (room - 1) // each) if each else 0
    supervised = min(answer, room - pictures * each)
    return Extent(
        num_tokens=question + pictures * each + supervised,
        num_supervised=supervised,
        is_multimodal=pictures > 0,
        grids=(shown,) * pictures,
    )
