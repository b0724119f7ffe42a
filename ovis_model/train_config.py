"""What the train section of params.yaml may say, which is also what a train_config.json may say.

`TrainConfig` has the keys of the seed's train_config.json; any further key must be a field of
`transformers.TrainingArguments` and is checked when training starts to be prepared.
"""

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ovis_model.config import PixelLimits
from ovis_model.errors import ConfigError

#: Keys for a training outside the pipeline, and what says the same inside of it.
OUTSIDE_PIPELINE = {
    "data_path": "validate.raw_data and validate.annotations",
    "image_folder": "validate.raw_data",
    "eval_data_path": "validate.holdout_fraction",
    "min_frames": "extract.min_frames",
    "max_frames": "extract.max_frames",
    "output_dir": "nothing: the model is always models/finetuned",
    "overwrite_output_dir": "nothing: models/finetuned is always replaced, by a finished model",
}
#: Keys that need the loss on the holdout.
SELECTION_KEYS = ("load_best_model_at_end", "metric_for_best_model", "early_stopping_patience")

#: Keys that no stage of a training may set for itself.
FOR_ALL_STAGES = {
    *OUTSIDE_PIPELINE,
    "stages",
    "ovis_pretrained_path",
    "model_path",
    "data_name",
    "deepspeed",
    "nproc_per_node",
    "nnodes",
    "master_addr",
    "master_port",
    "cache_encoded_samples",
}


class TrainConfig(PixelLimits):
    """Step 3: the seed's train_config.json, plus any field of transformers.TrainingArguments."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    ovis_pretrained_path: str = Field(description="folder of the base checkpoint")
    model_path: str | None = Field(default=None, description="the seed's second name for it")
    data_name: str = "custom_data"
    data_type: Literal["conversation"] = "conversation"
    data_path: str | None = Field(default=None, description="annotations, outside the pipeline")
    image_folder: str | None = Field(default=None, description="media root, outside the pipeline")
    eval_data_path: str | None = Field(default=None, description="holdout, outside the pipeline")
    min_frames: int | None = Field(default=None, gt=0, description="outside the pipeline")
    max_frames: int | None = Field(default=None, gt=0, description="outside the pipeline")
    output_dir: str | None = Field(default=None, description="outside the pipeline")
    overwrite_output_dir: bool = Field(
        default=False, description="replace a finished model there, outside the pipeline"
    )
    visual_vocab_size: int | None = Field(default=None, gt=0, description="must be the base's")
    stage: int = 3

    train_modules: str = Field(
        default="all",
        description="all, or names of modules joined by '|', each with ':lr'",
    )
    freeze_vision_tower: bool = False
    freeze_llm: bool = False

    lora_r: int = Field(default=0, ge=0, description="rank of adapters; 0 trains without them")
    lora_alpha: float | None = Field(
        default=None, gt=0, description="adapters are scaled by alpha / r; 2 r by default"
    )
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="before the adapters")
    lora_modules: str = Field(
        default="llm", description="modules whose linear layers get adapters, joined by '|'"
    )
    lora_variant: Literal["lora", "rslora", "dora"] = "lora"
    quantize_base: Literal["none", "int8", "nf4"] = Field(
        default="none", description="of the language model under its adapters; GPU only"
    )

    multimodal_max_length: int = Field(default=8192, gt=0, description="tokens")
    text_max_length: int = Field(default=4096, gt=0, description="tokens")

    num_train_epochs: float = Field(default=3.0, gt=0)
    max_steps: int = Field(default=-1, description="optimizer steps; -1 follows the epochs")
    per_device_train_batch_size: int = Field(default=1, gt=0)
    gradient_accumulation_steps: int = Field(default=8, gt=0)
    auto_micro_batch: bool = Field(
        default=True, description="answer a lack of memory with half the samples at a time"
    )
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
    logging_steps: int | float = Field(default=10, gt=0, description="below 1, a share")
    save_steps: int | float = Field(default=500, gt=0, description="below 1, a share of all steps")
    save_total_limit: int = Field(default=2, gt=0)
    eval_strategy: Literal["no", "steps", "epoch"] = Field(
        default="no", description="when the loss on the holdout is measured while training"
    )
    eval_steps: int | float | None = Field(
        default=None, gt=0, description="steps; below 1, a share of all steps"
    )
    load_best_model_at_end: bool = Field(
        default=False, description="hand over the weights with the lowest loss on the holdout"
    )
    metric_for_best_model: str = Field(
        default="eval_loss", description="or eval_loss/ and a source, thinking or answer"
    )
    early_stopping_patience: int | None = Field(
        default=None, gt=0, description="evaluations without a lower loss that end training"
    )
    early_stopping_threshold: float = Field(
        default=0.0, ge=0, description="a loss that is lower by no more than this does not count"
    )
    sample_steps: int | None = Field(
        default=None, gt=0, description="steps between two looks at what the model answers"
    )
    num_samples: int = Field(default=4, gt=0, description="held out prompts of such a look")
    sample_max_new_tokens: int = Field(default=128, gt=0, description="tokens of an answer")
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
    stages: tuple[dict[str, Any], ...] = Field(
        default=(), description="trainings behind each other, each with its own values of keys"
    )
    nnodes: int = Field(default=1, gt=0, description="machines that train together")
    master_addr: str | None = Field(default=None, description="name of the first of them")
    master_port: int | None = Field(default=None, gt=0, lt=65536, description="there")
    loss_spike_factor: float | None = Field(
        default=None, gt=1, description="stop if a step's loss is so many times the median's"
    )
    loss_spike_window: int = Field(
        default=50, gt=0, description="steps of which the median is taken"
    )
    hang_timeout_seconds: float = Field(
        default=1800.0, ge=0, description="stop if nothing moves for so long; 0 waits for ever"
    )
    cache_encoded_samples: bool = Field(
        default=False, description="keep encoded samples in memory between epochs"
    )
    cache_visual_tokens: bool = Field(
        default=False, description="keep what a frozen vision tower says of each picture"
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

    @model_validator(mode="before")
    @classmethod
    def _one_warm_up(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "warmup_ratio" not in values:
            return values
        others = {key: value for key, value in values.items() if key != "warmup_ratio"}
        ratio = values["warmup_ratio"]
        if ratio is None:
            return others
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
            raise ValueError(
                f"warmup_ratio is a share of all steps, 0 or more and below 1, not {ratio!r}"
            )
        if others.get("warmup_steps"):
            raise ValueError(
                f"warmup_ratio ({ratio}) and warmup_steps ({others['warmup_steps']}) both say how "
                "long the warm-up is; keep one"
            )
        return {**others, "warmup_steps": float(ratio)}

    @model_validator(mode="after")
    def _whole_steps(self) -> Self:
        for key in ("logging_steps", "save_steps", "eval_steps"):
            value = getattr(self, key) or 1
            if value > 1 and value != int(value):
                raise ValueError(
                    f"{key} is {value}; give whole steps, or a share of all steps below 1"
                )
        return self

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

    @model_validator(mode="after")
    def _evaluates_what_it_selects_by(self) -> Self:
        fields = type(self).model_fields
        asking = [key for key in SELECTION_KEYS if getattr(self, key) != fields[key].default]
        if self.eval_strategy == "no" and asking:
            raise ValueError(
                f"{', '.join(asking)}: nothing is measured while training, so this has no effect; "
                "say eval_strategy: steps, or epoch"
            )
        if self.eval_strategy != "steps" and self.eval_steps is not None:
            raise ValueError(
                f"eval_steps is {self.eval_steps:g}, but eval_strategy is {self.eval_strategy!r}; "
                "say eval_strategy: steps, or remove eval_steps"
            )
        if "metric_for_best_model" in asking and not self.selects_by_loss:
            raise ValueError(
                "metric_for_best_model chooses nothing; say load_best_model_at_end: true or give "
                "an early_stopping_patience"
            )
        return self

    @model_validator(mode="after")
    def _adapters_with_an_effect(self) -> Self:
        fields = type(self).model_fields
        idle = [
            key
            for key in ("lora_alpha", "lora_dropout", "lora_modules", "lora_variant")
            if not self.lora_r and getattr(self, key) != fields[key].default
        ]
        if idle:
            raise ValueError(
                f"{', '.join(idle)} has no effect without adapters; set lora_r to their rank, "
                "8 for instance"
            )
        if self.quantize_base != "none" and not self.lora_r:
            raise ValueError(
                f"quantize_base is {self.quantize_base!r}, but quantised weights cannot learn; "
                "set lora_r to the rank of adapters that do, 16 for instance"
            )
        return self

    @property
    def selects_by_loss(self) -> bool:
        """Whether a loss on the holdout decides what is handed over, or when training ends."""
        return self.load_best_model_at_end or self.early_stopping_patience is not None

    @property
    def best_metric(self) -> str:
        """`metric_for_best_model` by its full name."""
        name = self.metric_for_best_model
        return name if name.startswith("eval_") else f"eval_{name}"

    @model_validator(mode="after")
    def _usable_stages(self) -> Self:
        self.stage_configs()
        return self

    def stage_configs(self) -> tuple["TrainConfig", ...]:
        """Return one configuration per stage, or this one if there are no stages.

        Raises:
            ConfigError: If a stage changes what holds for all of them, or a value is refused.
        """
        common = self.model_dump(exclude={"stages"})
        configs = []
        for number, changes in enumerate(self.stages, start=1):
            if fixed := sorted(FOR_ALL_STAGES & changes.keys()):
                raise ConfigError(
                    f"train.stages: stage {number} sets {', '.join(fixed)}, which holds for all "
                    "stages; set it beside 'stages'"
                )
            where = f"train.stages: stage {number}"
            configs.append(TrainConfig.parse({**common, **changes}, where=where))
        return tuple(configs) or (self,)

    @property
    def num_processes(self) -> int:
        """Processes of a training in the pipeline, on all machines."""
        return self.nnodes * self.nproc_per_node

    @property
    def row_capacity(self) -> int:
        """Tokens of a packed row."""
        return self.pack_length or self.multimodal_max_length

    @property
    def data_seed(self) -> int:
        """Seed of the order of the data, and of which samples share a row."""
        own = self.training_arguments.get("data_seed")
        return self.seed if own is None else int(own)

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
