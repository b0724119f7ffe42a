"""What transformers needs to know to load, save and initialise an Ovis2.5."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_siglip2_navit import PatchEmbedding, PositionEmbedding
from ovis_model.modeling.strict_loading import StrictLoading


class Ovis2_5PreTrainedModel(StrictLoading, PreTrainedModel):
    """Base of the model; a class of its own because transformers expects one."""

    config_class = Ovis2_5Config
    config: Ovis2_5Config
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _no_split_modules = ["Qwen3DecoderLayer", "Siglip2NavitEncoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise new weights; the vision embeddings as SigLIP does.

        With one width for all, a patch's content would outweigh its place about 25 times, and a
        model trained from random weights would learn what it sees long before where.
        """
        if isinstance(module, PatchEmbedding | PositionEmbedding):
            init.normal_(module.weight, std=module.initial_std)
            if isinstance(module, PatchEmbedding) and module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]
