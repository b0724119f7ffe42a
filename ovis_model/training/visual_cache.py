"""What a frozen vision tower says of each picture, computed once and kept in memory.

What is kept depends on what learns, for it must not change while training runs:

    nothing visual learns           visual embeddings, [num_tokens, hidden] of each medium
    head or visual table learn      the tower's features, [num_tokens, 4 * vit_hidden] of each
    the tower learns                nothing: refused

The probabilities over the visual words are never kept: 65,532 for each token, 27 times the
features of the 2B.  Media are known by their pixels, so the same picture is kept once, whatever
sample, padding or packing it comes in, and each is computed alone, so that its numbers do not
depend on what shared its batch first.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor

from ovis_model.errors import ConfigError
from ovis_model.flops import Grid, Learning
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.modeling.visual_tokenizer import SeenMedia

Kind = Literal["embeddings", "features"]
#: Entry of a batch: a digest of each medium's pixels and grid.
MEDIA_DIGESTS = "media_digests"


def choose_kind(learning: Learning, *, zero_stage: int) -> Kind:
    """Say what may be kept.

    Args:
        learning: What learns, adapters included.
        zero_stage: Of DeepSpeed.

    Raises:
        ConfigError: If nothing may.
    """
    if learning.reached("vit"):
        raise ConfigError(
            "cache_visual_tokens: the vision tower learns, so what it says of a picture changes "
            "with every step; set freeze_vision_tower: true, or leave the tower out of "
            "train_modules and lora_modules"
        )
    if zero_stage == 3:
        raise ConfigError(
            "cache_visual_tokens: under ZeRO-3 all processes have to run the tower at the same "
            "time, and one that has its pictures kept would leave the others waiting; use ZeRO-2"
        )
    return "features" if learning.reached("vte") else "embeddings"


def bytes_per_token(kind: Kind, config: Ovis2_5Config, *, number: int) -> int:
    """Return the size of what is kept of one visual token.

    Args:
        kind: Of what is kept.
        config: Of the model.
        number: Bytes of one number.
    """
    vit, llm = config.vit, config.llm
    features = vit.hidden_size * vit.hidden_stride**2
    width: int = features if kind == "features" else llm.hidden_size
    return width * number


class DigestingCollator:
    """Lets another collator make the batch and adds a digest of each medium."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        """Make one batch; `media_digests` is a list of bytes, empty where nothing is shown."""
        batch: dict[str, Any] = self.collate(examples)
        batch[MEDIA_DIGESTS] = [
            _digest(grid, pixels)
            for grid, pixels in split_media(batch.get("pixel_values"), batch.get("grid_thws"))
        ]
        return batch


def split_media(
    pixel_values: Tensor | None, grid_thws: Tensor | None
) -> list[tuple[Grid, Tensor]]:
    """Cut the patches of a batch into those of each medium."""
    if pixel_values is None or grid_thws is None:
        return []
    grids: list[Grid] = [(t, h, w) for t, h, w in grid_thws.tolist()]
    parts = torch.split(pixel_values, [t * h * w for t, h, w in grids])
    return list(zip(grids, parts, strict=True))


def _digest(grid: Grid, pixels: Tensor) -> bytes:
    digest = hashlib.blake2b(repr((grid, pixels.dtype)).encode(), digest_size=16)
    digest.update(pixels.contiguous().numpy().data)
    return digest.digest()


class VisualCache:
    """Puts what is known of a batch's media in their place, and computes what is not.

    Args:
        model: Its visual parts are whole on this process and do not change.
        kind: What may be kept.
        precision: Makes the context in which the model's forward pass runs.
    """

    def __init__(
        self,
        model: Ovis2_5ForConditionalGeneration,
        kind: Kind,
        precision: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.model = model
        self.kind = kind
        self.precision = precision
        self._kept: dict[bytes, Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        """Memory that is taken."""
        return sum(one.numel() * one.element_size() for one in self._kept.values())

    def fill_in(self, inputs: dict[str, Any]) -> list[Grid]:
        """Replace the media of a batch.

        Args:
            inputs: Of the model, with `media_digests`; changed in place.

        Returns:
            Grids of the media that were known, whose work is not done again.
        """
        digests = inputs.pop(MEDIA_DIGESTS)
        media = split_media(inputs.pop("pixel_values", None), inputs.pop("grid_thws", None))
        if not media:
            return []
        device = media[0][1].device
        known = [
            grid for digest, (grid, _) in zip(digests, media, strict=True) if digest in self._kept
        ]
        for digest, (grid, pixels) in zip(digests, media, strict=True):
            if digest not in self._kept:
                self._kept[digest] = self._compute(pixels, grid).cpu()
        states = torch.cat([self._kept[digest].to(device) for digest in digests])
        is_whole = self.kind == "embeddings"
        inputs["seen"] = SeenMedia(embeds=states) if is_whole else SeenMedia(features=states)
        return known

    @torch.no_grad()
    def _compute(self, pixels: Tensor, grid: Grid) -> Tensor:
        grids = torch.tensor([grid], device=pixels.device)
        with self.precision():
            if self.kind == "embeddings":
                return self.model.embed_media(pixels, grids)
            features: Tensor = self.model.visual_tokenizer.vit(pixels, grids)
            return features
