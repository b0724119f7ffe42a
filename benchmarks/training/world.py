"""What the trainers train on: a checkpoint folder, an annotation file and pictures, on disk.

    base/             the tiny model with the real vocabularies, random weights, official layout
    annotations.json  conversations in the official format, one picture, several or none each
    images/           JPEGs

Any trainer that reads Ovis2.5's layout can be run on the same folder.  The samples have the kinds
and shares of `mix`; their pictures have about a fifth of its area, their texts about a fifth
of its length, so that a tiny model gets through them: 280 tokens on average, half of them visual,
a third learned.
"""

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data.annotations import save_jpeg
from benchmarks.data.cache import cached
from benchmarks.machine import ROOT
from benchmarks.model.preprocessing import PATCH, generated_image, stock_processor
from benchmarks.model.tiny_ovis import tiny_config
from benchmarks.model.tokenization import build_tokenizer, random_text
from benchmarks.training import mix
from benchmarks.workload import digest
from ovis_model.config import PixelLimits
from ovis_model.data.dataset import Extent
from ovis_model.modeling.checkpoint import write_checkpoint
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.processing.image_processing_ovis2_5 import Ovis2_5ImageProcessor
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.reports import sha256_of_file
from ovis_model.tokens import IMAGE_PLACEHOLDER, THINK_CLOSE, THINK_OPEN

#: What is left of a picture's area, of a question and of an answer of `mix`.
AREA, QUESTION, ANSWER = 0.18, 0.2, 0.18
#: A picture's sides are a little short of whole cells, so that it is resized as others are.
SHORT_BY = 6
#: Of the answers, every fourth thinks first.
THINKS_EVERY = 4
NUM_SAMPLES, NUM_SAMPLES_SMALL = 16, 4
CHAT_TEMPLATE = ROOT / "data" / "sample" / "chat_template.jinja"
#: All pictures keep their size, alone or among others.
PIXEL_LIMITS = {
    f"{kind}_{bound}_pixels": pixels
    for kind in ("single_image", "multiple_image")
    for bound, pixels in (("min", 64 * 64), ("max", 1024 * 1024))
}
#: Takes part in the names of cached folders: to be raised when what they hold is made differently.
VERSION = 1


@dataclass(frozen=True)
class World:
    """The folder."""

    root: Path

    @property
    def base(self) -> Path:
        """The checkpoint."""
        return self.root / "base"

    @property
    def annotations(self) -> Path:
        """The samples."""
        return self.root / "annotations.json"

    @property
    def sha256(self) -> str:
        """Digest of weights and samples; of the pictures, their sizes and seeds decide."""
        weights = sorted(self.base.glob("*.safetensors"))
        return digest(sha256_of_file(self.annotations), *map(sha256_of_file, weights))


def build_world(*, seed: int = 0, small: bool = False) -> World:
    """Write the folder, or find it written.

    Args:
        seed: Of the samples.
        small: A narrower model and fewer samples, for a quick look.
    """
    count = NUM_SAMPLES_SMALL if small else NUM_SAMPLES
    name = f"training/{VERSION}-{count}-{seed}{'-narrow' if small else ''}"
    return World(cached(name, partial(_write_world, seed, count, small)))


def _write_world(seed: int, count: int, narrow: bool, folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(seed)
    samples = [
        _write_sample(number, extent, random, folder)
        for number, extent in enumerate(mix.extents(count, seed))
    ]
    (folder / "annotations.json").write_text(json.dumps(samples, indent=1), encoding="utf-8")
    write_base(folder / "base", narrow=narrow)


def write_base(folder: Path, *, narrow: bool) -> None:
    """Write the checkpoint in the official layout."""
    config = tiny_config(narrow=narrow, tie_word_embeddings=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Ovis2_5ForConditionalGeneration(config)
    processor = Ovis2_5Processor(
        Ovis2_5ImageProcessor(),
        build_tokenizer(),
        chat_template=CHAT_TEMPLATE.read_text(encoding="utf-8"),
        pixel_limits=PixelLimits(**PIXEL_LIMITS),
    )
    folder.mkdir()
    write_checkpoint(model, processor, folder)
    stock_processor().save_pretrained(str(folder))


def _write_sample(
    number: int, extent: Extent, random: np.random.Generator, folder: Path
) -> dict[str, Any]:
    names = []
    for place, (_, height, width) in enumerate(extent.grids):
        name = f"images/{number}-{place}.jpg"
        image = generated_image(100 * number + place, _side(width), _side(height))
        save_jpeg(image, folder / name)
        names.append(name)
    visual = sum(h * w // 4 + 2 for _, h, w in extent.grids)
    asked = max(4, round(QUESTION * (extent.num_tokens - visual - extent.num_supervised)))
    said = max(4, round(ANSWER * extent.num_supervised))
    return {
        "id": f"sample-{number}",
        **({"image": names} if names else {}),
        "conversations": [
            {
                "from": "human",
                "value": f"{IMAGE_PLACEHOLDER}\n" * len(names) + random_text(random, asked),
            },
            {"from": "gpt", "value": _answer(random, said, thinks=number % THINKS_EVERY == 1)},
        ],
    }


def _side(patches: int) -> int:
    cells: int = max(1, round(patches / 2 * math.sqrt(AREA)))
    return 2 * PATCH * cells - SHORT_BY


def _answer(random: np.random.Generator, num_words: int, *, thinks: bool) -> str:
    if not thinks:
        return random_text(random, num_words)
    thought = random_text(random, num_words * 3 // 4)
    return f"{THINK_OPEN}\n{thought}\n{THINK_CLOSE}\n\n{random_text(random, num_words // 4)}"
