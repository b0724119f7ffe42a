"""Configuration of Ovis2.5, with the keys of the released config.json.

Source: config.json of AIDC-AI/Ovis2.5-9B, August 2025.
"""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig, Qwen3Config

from ovis_model.errors import ConfigError

#: What the released checkpoints call the architecture; other readers select by this string.
ARCHITECTURE = "Ovis2_5"
#: Of the language model, repeated at the top: readers of config.json look for them there.
COPIES = (
    "hidden_size",
    "tie_word_embeddings",
    "vocab_size",
    "num_attention_heads",
    "max_position_embeddings",
)
_GENERIC = PreTrainedConfig().to_dict()


class Siglip2NavitConfig(PreTrainedConfig):
    """The vision tower: SigLIP2 with native resolution, learned positions and 2-D rotary ones.

    `fullatt_block_indexes` is None when every block attends to its whole frame (all released
    models), else block numbers joined by '|': those are full, the others windowed.
    """

    model_type = "siglip2_navit"
    base_config_key = "vit_config"

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    num_channels: int = 3
    num_patches: int = -1
    image_size: int = 512
    patch_size: int = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float = 0.0
    hidden_stride: int = 2
    window_size: int = 112
    fullatt_block_indexes: str | None = None
    temporal_patch_size: int = 1
    preserve_original_pe: bool = True
    use_rope: bool = True
    initializer_range: float = 0.02

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def full_attention_blocks(self) -> frozenset[int] | None:
        """Numbers of the blocks with full attention; None means every block."""
        if self.fullatt_block_indexes is None:
            return None
        return frozenset(int(n) for n in self.fullatt_block_indexes.split("|") if n)


class Ovis2_5Config(PreTrainedConfig):
    """Language model, vision tower and the visual vocabulary between them."""

    model_type = "ovis2_5"
    sub_configs = {"llm_config": AutoConfig, "vit_config": Siglip2NavitConfig}  # noqa: RUF012 - transformers' own spelling

    llm_config: dict[str, Any] | PreTrainedConfig | None = None
    vit_config: dict[str, Any] | PreTrainedConfig | None = None
    visual_vocab_size: int = 65536
    hidden_size: int | None = None
    conversation_formatter_class: str = "Qwen3ConversationFormatter"
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn nested dictionaries into configurations and check that they fit together."""
        if not isinstance(self.llm_config, PreTrainedConfig):
            self.llm_config = _language_model_config(self.llm_config or {})
        if not isinstance(self.vit_config, PreTrainedConfig):
            vit = _with_new_dtype(dict(self.vit_config or {}))
            vit.pop("model_type", None)
            self.vit_config = Siglip2NavitConfig(**vit)
        llm = self.llm
        for name in COPIES:
            setattr(self, name, getattr(llm, name))
        if self.vit.temporal_patch_size != 1:
            raise ConfigError(
                f"vit_config.temporal_patch_size is {self.vit.temporal_patch_size}; every "
                "released Ovis2.5 uses 1 and its patch embedding supports nothing else"
            )
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    @property
    def llm(self) -> PreTrainedConfig:
        """The language model's configuration."""
        assert isinstance(self.llm_config, PreTrainedConfig)  # __post_init__ made it one
        return self.llm_config

    @property
    def vit(self) -> Siglip2NavitConfig:
        """The vision tower's configuration."""
        assert isinstance(self.vit_config, Siglip2NavitConfig)
        return self.vit_config

    def get_text_config(self, *_: Any, **__: Any) -> PreTrainedConfig:
        """Return the language model's configuration, where transformers expects it."""
        return self.llm

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Read a configuration; of the two spellings of the precision, only the new one."""
        return super().from_dict(_with_new_dtype(config_dict), **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Write the released layout: transformers 4 must read rope_theta, not a default."""
        values: dict[str, Any] = super().to_dict()
        values["architectures"] = [ARCHITECTURE]
        llm = values["llm_config"]
        # Again, for `resize_token_embeddings` changes the language model's alone.
        values.update({name: llm[name] for name in COPIES})
        if rope := llm.get("rope_parameters"):
            llm["rope_theta"] = rope["rope_theta"]
            llm.setdefault("rope_scaling", None)
        return values

    def to_diff_dict(self) -> dict[str, Any]:
        """Say what config.json says: the released keys, the precision in both spellings."""
        values: dict[str, Any] = super().to_diff_dict()
        values.update({name: getattr(self.llm, name) for name in ("use_cache", *COPIES)})
        parts = [values["llm_config"], values["vit_config"]]
        for part in parts:
            # What every configuration of transformers has, and this model does not use.
            for name, value in _GENERIC.items():
                if name in part and part[name] == value:
                    del part[name]
        for part in [values, *parts]:
            if "dtype" in part:
                # Not in to_dict: transformers reads every key of that back, and warns of this.
                part["torch_dtype"] = part["dtype"]
        return values


def _language_model_config(values: dict[str, Any]) -> PreTrainedConfig:
    model_type = values.get("model_type", "qwen3")
    if model_type != "qwen3":
        raise ConfigError(
            f"llm_config.model_type is {model_type!r}; Ovis2.5's chat format, thinking tokens and "
            "tied layouts are Qwen3's, so only 'qwen3' language models are supported"
        )
    # The released file carries this flag, which would keep transformers 4 on slow attention.
    dropped = ("model_type", "_attn_implementation_autoset")
    kept = {k: v for k, v in values.items() if k not in dropped}
    return Qwen3Config(**_with_new_dtype(kept))


def _with_new_dtype(values: dict[str, Any]) -> dict[str, Any]:
    # transformers 4 reads `torch_dtype`, transformers 5 `dtype` and warns about the other.
    renamed = {k: v for k, v in values.items() if k != "torch_dtype"}
    if "torch_dtype" in values:
        renamed.setdefault("dtype", values["torch_dtype"])
    return renamed
