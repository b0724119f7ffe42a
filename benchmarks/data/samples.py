"""P2: a sample to model input, from the bytes of its picture on, against the reference's way.

What the reference does, in our words: Pillow opens and converts the picture, transformers' SigLIP
processor and numpy make float32 patches of it (`benchmarks.model.preprocessing`), the text is
tokenized piece by piece and once more as a whole, and Python lists put visual positions where the
placeholder is (`benchmarks.model.tokenization`).  Ours is what training reads:
`ConversationDataset`, on pictures that are named by their digest, as extraction names them.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from benchmarks.data.annotations import save_jpeg, sentences
from benchmarks.data.cache import cached
from benchmarks.model.agreement import bitwise
from benchmarks.model.preprocessing import (
    LIMITS,
    PATCH,
    generated_image,
    stock_processor,
    with_stock_parts,
)
from benchmarks.model.tokenization import Conversation, build_tokenizer, piece_by_piece
from benchmarks.suite import Agreement, Trial
from benchmarks.workload import digest
from ovis_model.config import PixelLimits
from ovis_model.data.dataset import ConversationDataset
from ovis_model.data.schema import Sample
from ovis_model.modeling.modeling_siglip2_navit import normalize_patches
from ovis_model.processing.image_processing_ovis2_5 import Ovis2_5ImageProcessor, smart_resize
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor

Size = tuple[int, int]
#: Width and height of twenty pictures: photographs from the web, charts, pages, screenshots, a
#: crop, and one straight from a telephone.
SIZES: tuple[Size, ...] = (
    *((640, 480),) * 5,
    *((480, 640),) * 2,
    *((850, 600),) * 4,
    *((1024, 1024),) * 2,
    *((1240, 1754),) * 3,
    *((1920, 1080),) * 2,
    (200, 120),
    (4000, 3000),
)


@dataclass(frozen=True)
class Encoded:
    """Model input of one sample."""

    ids: Tensor
    labels: Tensor
    pixels: Tensor
    """float32 [num_patches, 768], or uint8, which the model normalises."""


def build(seed: int, *, sizes: Sequence[Size] = SIZES) -> Trial:
    """Make the trial: a pass over samples with one picture each."""
    name = f"{len(sizes)}-{sum(w * h for w, h in sizes)}-{seed}"
    folder = cached(f"samples/{name}", partial(_write_pictures, seed, sizes))
    pictures = sorted(folder.glob("media/*/*.jpg"))
    random = np.random.default_rng(seed)
    conversations = [_conversation(random, number) for number in range(len(pictures))]
    dataset = _dataset(folder, pictures, conversations)
    return Trial(
        variants={
            "Pillow, SiglipImageProcessor, Python lists": partial(
                with_stock_parts_only,
                stock_processor(),
                build_tokenizer(),
                pictures,
                conversations,
            ),
            "ours": partial(ours, dataset),
        },
        compare=same_samples,
        sha256=digest([path.name for path in pictures], conversations),
    )


def with_stock_parts_only(
    processor: SiglipImageProcessorPil,
    tokenizer: Any,
    pictures: Sequence[Path],
    conversations: Sequence[Conversation],
) -> list[Encoded]:
    """Return every sample as the reference makes it."""
    encoded = []
    for path, conversation in zip(pictures, conversations, strict=True):
        image = Image.open(path).convert("RGB")
        pixels = with_stock_parts(processor, image)
        height, width = smart_resize(image.height, image.width, **LIMITS)
        grid = (1, height // PATCH, width // PATCH)
        encoded.append(Encoded(*piece_by_piece(tokenizer, conversation, [grid]), pixels))
    return encoded


def ours(dataset: ConversationDataset) -> list[Encoded]:
    """Return every sample as training gets it."""
    found = (dataset[index].encoded for index in range(len(dataset)))
    encoded = []
    for sample in found:
        assert sample.labels is not None
        assert sample.pixel_values is not None
        encoded.append(Encoded(sample.input_ids, sample.labels, sample.pixel_values))
    return encoded


def same_samples(expected: Sequence[Encoded], found: Sequence[Encoded]) -> Agreement:
    """Ask for the same ids and labels, and for the same pixels once the model normalised them."""
    if len(expected) != len(found):
        return Agreement(False, f"{len(found)} of {len(expected)} samples")
    for number, (a, b) in enumerate(zip(expected, found, strict=True)):
        for name, agreement in _compare(a, b):
            if not agreement.equal:
                return Agreement(False, f"sample {number}, {name}: {agreement.how}")
    return Agreement(True, "bitwise")


def _compare(expected: Encoded, found: Encoded) -> Iterable[tuple[str, Agreement]]:
    yield "ids", bitwise(expected.ids, found.ids)
    yield "labels", bitwise(expected.labels, found.labels)
    yield "pixels", bitwise(expected.pixels, normalize_patches(found.pixels))


def _dataset(
    folder: Path, pictures: Sequence[Path], conversations: Sequence[Conversation]
) -> ConversationDataset:
    samples = [
        Sample.model_validate(
            {
                "id": path.stem,
                "image": path.relative_to(folder).as_posix(),
                "conversations": conversation,
            }
        )
        for path, conversation in zip(pictures, conversations, strict=True)
    ]
    processor = Ovis2_5Processor(
        Ovis2_5ImageProcessor(),
        build_tokenizer(),
        chat_template="",  # renders prompts, and there are none here
        pixel_limits=PixelLimits(
            single_image_min_pixels=LIMITS["min_pixels"],
            single_image_max_pixels=LIMITS["max_pixels"],
        ),
    )
    return ConversationDataset(samples, media_root=folder, processor=processor)


def _conversation(random: np.random.Generator, number: int) -> Conversation:
    """Draw a question and an answer; every fourth sample is three of each, or thinks."""
    num_questions = 3 if number % 4 == 1 else 1
    turns = []
    for question in range(num_questions):
        asked = " ".join(sentences(random, 2))
        said = " ".join(sentences(random, 6))
        if number % 4 == 2:
            said = f"<think>\n{' '.join(sentences(random, 30))}\n</think>\n\n{said}"
        turns.append({"from": "human", "value": asked if question else f"<image>\n{asked}"})
        turns.append({"from": "gpt", "value": said})
    return turns


def _write_pictures(seed: int, sizes: Sequence[Size], folder: Path) -> None:
    for number, (width, height) in enumerate(sizes):
        content = io.BytesIO()
        save_jpeg(generated_image(1000 * seed + number, width, height), content)
        name = hashlib.sha256(content.getvalue()).hexdigest()
        path = folder / "media" / name[:2] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.getvalue())
