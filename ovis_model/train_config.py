"""What the train section of params.yaml may say, which is also what a train_config.json may say.

`TrainConfig` has the keys of the seed's train_config.json; any further key must be a field of
`transformers.TrainingArguments` and is checked when training starts to be prepared.
"""

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ovis_model.config import PixelLimits


class TrainConfig(PixelLimits):
    """Step 3: the seed's train_config.json, plus any field of transformers.TrainingArguments."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    ovis_pretrained_path: str = Field(description="folder of the base checkpoint")
    model_path: str | None = Field(default=None, description="the seed's second name for it")
    data_name: str = "custom_data"
    data_type: Literal["conversation"] = "conversation"
    data_path: str | None = Field(default=None, description="annotations, outside the pipeline")
    image_folder: str | None = Field(default=None, description="media root, outside the pipeline")
    output_dir: str | None = Field(default=None, description="outside the pipeline")
    stage: int = 3

    train_modules: str = Field(
        default="all",
        description="all, or names of modules joined by '|', each with ':lr'",
    )
    freeze_vision_tower: bool = False
    freeze_llm: bool = False

    multimodal_max_length: int = Field(default=8192, gt=0, description="tokens")
    text_max_length: int = Field(default=4096, gt=0, description="tokens")

    num_train_epochs: float = Field(default=3.0, gt=0)
    max_steps: int = Field(default=-1, description="optimizer steps; -1 follows the epochs")
    per_device_train_batch_size: int = Field(default=1, gt=0)
    gradient_accumulation_steps: int = Field(default=8, gt=0)
    packing: bool = Field(
        default=False, description="a micro-batch is one row of whole samples, without padding"
    )
    pack_length: int | None = Field(
        default=None, gt=0, description="tokens of such a row; multimodal_max_length by default"
    )
    learning_rate: float = Field(default=2e-5, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_steps: float = Field(default=0.0, ge=0, description="steps; below 1, a share of them")
    lr_scheduler_type: str = "cosine"
    max_grad_norm: float = Field(default=1.0, ge=0)
    logging_steps: int = Field(default=10, gt=0)
    save_steps: int = Field(default=500, gt=0)
    save_total_limit: int = Field(default=2, gt=0)
    seed: int = 42
    bf16: bool = False
    gradient_checkpointing: bool = Field(
        default=False, description="recompute blocks in the backward pass, to save memory"
    )
    vit_gradient_checkpointing: bool | None = Field(
        default=None, description="of the vision tower alone; null does as the line above"
    )
    dataloader_num_workers: int = Field(default=0, ge=0)

    deepspeed: str | None = Field(default=None, description="path of a DeepSpeed JSON config")
    attn_implementation: str = Field(
        default="auto", description="auto, flash_attention_2, varlen, sdpa or eager"
    )
    nproc_per_node: int = Field(default=1, gt=0, description="processes torchrun starts here")
    cache_encoded_samples: bool = Field(
        default=False, description="keep encoded samples in memory between epochs"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_base_model(cls, values: Any) -> Any:
        if isinstance(values, dict):
            path, base = values.get("model_path"), values.get("ovis_pretrained_path")
            if path and base and path != base:
                raise ValueError(
                    f"model_path ({path!r}) and ovis_pretrained_path ({base!r}) name two base "
                    "models; they are two names of one setting, keep one"
                )
            if path and not base:
                values = {**values, "ovis_pretrained_path": path}
        return values

    @model_validator(mode="after")
    def _stage_with_an_effect(self) -> Self:
        if self.stage != 3:
            raise ValueError(
                f"stage {self.stage} has no effect here; 3 (full training) is the only stage, "
                "choose what learns with train_modules and the freeze flags"
            )
        return self

    @model_validator(mode="after")
    def _one_row_per_micro_batch(self) -> Self:
        if self.packing and self.per_device_train_batch_size != 1:
            raise ValueError(
                f"with packing a micro-batch is one row, but per_device_train_batch_size is "
                f"{self.per_device_train_batch_size}; set it to 1 and say with pack_length how "
                "many tokens a row has"
            )
        return self

    @property
    def checkpointed_parts(self) -> tuple[str, ...]:
        """Parts of the model whose blocks are recomputed: "llm", "vit"."""
        vit = self.vit_gradient_checkpointing
        vit = self.gradient_checkpointing if vit is None else vit
        chosen = {"llm": self.gradient_checkpointing, "vit": vit}
        return tuple(part for part, recompute in chosen.items() if recompute)

    @property
    def training_arguments(self) -> dict[str, Any]:
        """Keys that this class does not know: fields of transformers.TrainingArguments."""
        return dict(self.model_extra or {})

    @property
    def pixel_limits(self) -> PixelLimits:
        """The six pixel keys alone."""
        return PixelLimits(**{name: getattr(self, name) for name in PixelLimits.model_fields})
