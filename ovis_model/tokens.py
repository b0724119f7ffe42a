"""Ids and texts that mean something to Ovis2.5 beyond their letters.

Negative ids never reach the language model: they mark where visual embeddings go.
Ids of real tokens differ between tokenizers, so they are resolved by name.

Source: AIDC-AI/Ovis @ 4de4946, `constants.py` and the released `modeling_ovis2_5.py`.
"""

from dataclasses import dataclass
from typing import Any, Protocol, Self

from ovis_model.errors import CheckpointError

IGNORE_ID = -100

IMAGE_PLACEHOLDER = "<image>"
VIDEO_PLACEHOLDER = "<video>"
IMAGE_PLACEHOLDER_ID = -200
VIDEO_PLACEHOLDER_ID = -201
VISUAL_ATOM_ID = -300
IMAGE_BEGIN_ID, IMAGE_END_ID = -301, -302
VIDEO_BEGIN_ID, VIDEO_END_ID = -303, -304
#: Order of the last rows of the visual embedding table.
INDICATOR_IDS = (IMAGE_BEGIN_ID, IMAGE_END_ID, VIDEO_BEGIN_ID, VIDEO_END_ID)

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
EMPTY_THINK = "<think>\n\n</think>\n\n"
#: Forced into the output when the thinking budget runs out before `</think>`.
CLOSING_SENTENCE = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the "
    "thinking directly now.\n</think>\n\n"
)

IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
#: Qwen3's added tokens, in id order; True marks those that `skip_special_tokens` removes.
ADDED_TOKENS: tuple[tuple[str, bool], ...] = (
    (END_OF_TEXT, True),
    (IM_START, True),
    (IM_END, True),
    ("<|object_ref_start|>", True),
    ("<|object_ref_end|>", True),
    ("<|box_start|>", True),
    ("<|box_end|>", True),
    ("<|quad_start|>", True),
    ("<|quad_end|>", True),
    ("<|vision_start|>", True),
    ("<|vision_end|>", True),
    ("<|vision_pad|>", True),
    ("<|image_pad|>", True),
    ("<|video_pad|>", True),
    ("<tool_call>", False),
    ("</tool_call>", False),
    ("<|fim_prefix|>", False),
    ("<|fim_middle|>", False),
    ("<|fim_suffix|>", False),
    ("<|fim_pad|>", False),
    ("<|repo_name|>", False),
    ("<|file_sep|>", False),
    ("<tool_response>", False),
    ("</tool_response>", False),
    (THINK_OPEN, False),
    (THINK_CLOSE, False),
)


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that this project calls."""

    @property
    def backend_tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` inside."""
        ...

    def convert_tokens_to_ids(self, token: str) -> int:
        """Return the id of a token written out."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]:
        """Tokenize text."""
        ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = ...) -> str:
        """Turn ids back into text."""
        ...


@dataclass(frozen=True)
class TokenIds:
    """Ids of the tokens that steer generation, as one tokenizer numbers them."""

    im_start: int
    im_end: int
    pad: int
    think_open: int
    think_close: int
    closing_sentence: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Look the ids up by name.

        Raises:
            CheckpointError: If the tokenizer lacks one of Qwen3's tokens.
        """
        names = (IM_START, IM_END, END_OF_TEXT, THINK_OPEN, THINK_CLOSE)
        ids = []
        for name in names:
            encoded = tokenizer.encode(name, add_special_tokens=False)
            if len(encoded) != 1:
                raise CheckpointError(
                    f"the tokenizer has no single token for {name!r} (it gives {encoded}); "
                    "Ovis2.5 needs a Qwen3 tokenizer: copy the base checkpoint's tokenizer files"
                )
            ids.append(encoded[0])
        im_start, im_end, pad, think_open, think_close = ids
        return cls(
            im_start=im_start,
            im_end=im_end,
            pad=pad,
            think_open=think_open,
            think_close=think_close,
            closing_sentence=tuple(tokenizer.encode(CLOSING_SENTENCE, add_special_tokens=False)),
        )
