"""The tiny model: the one that generates in this suite, with prompts, and that which is trained.

Ovis2.5's own classes with the released vocabularies (151,936 tokens and 65,536 visual words), a
narrow language model of six layers and a tower of four: what a step costs then lies, as in the
released models, in the vocabularies, the sequence length and the number of steps.  Weights are
random, so the ids below mean nothing; they are those of the released tokenizer all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.tokens import IMAGE_BEGIN_ID, IMAGE_END_ID, VISUAL_ATOM_ID, TokenIds

PATCH_PIXELS = 16
TEXT_VOCAB, VISUAL_VOCAB = 151936, 65536
#: Ids below this one are plain text in the released tokenizer.
NUM_TEXT_IDS = 151643
TOKEN_IDS = TokenIds(
    im_start=151644,
    im_end=151645,
    pad=151643,
    think_open=151667,
    think_close=151668,
    closing_sentence=(
        *(271, 82796, 279, 7199, 882, 553, 279, 1196, 11, 358, 614, 311),
        *(2968, 279, 6291, 3118, 389, 279, 7274, 5961, 1431, 624, 151668, 271),
    ),
)


@dataclass(frozen=True)
class Prompt:
    """One row: its ids, visual positions expanded, and its image."""

    input_ids: Tensor
    """int64 [1, seq_len]."""
    pixel_values: Tensor
    """uint8 [num_patches, 768]."""
    grid_thws: Tensor
    """int64 [1, 3]."""


def tiny_config(*, narrow: bool = False, **llm_config: Any) -> Ovis2_5Config:
    """Describe the tiny model.

    Args:
        narrow: Make it narrower still, for a quick look.
        **llm_config: Values of the language model's configuration, in place of those here.
    """
    width = 32 if narrow else 256
    return Ovis2_5Config(
        llm_config={
            "model_type": "qwen3",
            "vocab_size": TEXT_VOCAB,
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": 2 if narrow else 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": width // 4,
            "rope_theta": 1_000_000,
            "max_position_embeddings": 40960,
            **llm_config,
        },
        vit_config={
            "hidden_size": 144,
            "intermediate_size": 576,
            "num_hidden_layers": 1 if narrow else 4,
            "num_attention_heads": 2,
        },
        visual_vocab_size=1024 if narrow else VISUAL_VOCAB,
    )


@lru_cache(maxsize=1)
def build_model(narrow: bool = False) -> Ovis2_5ForConditionalGeneration:
    """Build the model in float32; the weights are the same every time.

    Args:
        narrow: Make it narrower still, for a quick look.
    """
    config = tiny_config(
        narrow=narrow,
        tie_word_embeddings=False,
        # Wide enough that the next id depends on the whole context, not on the last id.
        initializer_range=0.2,
    )
    config.initializer_range = 0.1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Ovis2_5ForConditionalGeneration(config)
    model.train(mode=False)
    model.token_ids = TOKEN_IDS
    return model


def random_text(random: torch.Generator, length: int) -> Tensor:
    """Draw plain text ids, int64 [1, length]."""
    return torch.randint(NUM_TEXT_IDS, (1, length), generator=random)


def image_prompt(random: torch.Generator, *, height: int, width: int, text_tokens: int) -> Prompt:
    """Make a prompt of a few ids, an image of random patches and a question.

    Args:
        random: Where ids and patches come from.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        text_tokens: Ids after the image.
    """
    grid = (1, height // PATCH_PIXELS, width // PATCH_PIXELS)
    num_patches = grid[1] * grid[2]
    image = [IMAGE_BEGIN_ID, *[VISUAL_ATOM_ID] * (num_patches // 4), IMAGE_END_ID]
    return Prompt(
        torch.cat(
            [random_text(random, 4), torch.tensor([image]), random_text(random, text_tokens)],
            dim=1,
        ),
        torch.randint(256, (num_patches, 768), dtype=torch.uint8, generator=random),
        torch.tensor([grid]),
    )


def pad_left(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Put rows [1, seq_len] of different lengths into one batch.

    Returns:
        input_ids int64 and attention_mask bool, both [batch, longest].
    """
    longest = max(row.shape[1] for row in rows)
    input_ids = torch.full((len(rows), longest), TOKEN_IDS.pad)
    attention_mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for number, row in enumerate(rows):
        input_ids[number, longest - row.shape[1] :] = row[0]
        attention_mask[number, longest - row.shape[1] :] = True
    return input_ids, attention_mask
