"""Fine-tune a base checkpoint on extracted conversations; start here to follow the train step.

    read inputs -> encode and check -> load base -> train (resuming) -> holdout loss -> save

Every process runs all of it; files that exist once are written by the first.
"""

import csv
import io
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from ovis_model.data.collator import DataCollatorForMultimodalDataset, PackingCollator
from ovis_model.data.dataset import ConversationDataset, Extent, check_extents
from ovis_model.errors import CheckpointError, ConfigError, TrainingError
from ovis_model.modeling.checkpoint import load_model, replacing, write_checkpoint
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.reports import write_text
from ovis_model.train_config import TrainConfig
from ovis_model.training import checkpoints, faults
from ovis_model.training.adapters import FOLDER as ADAPTER_FOLDER
from ovis_model.training.adapters import (
    add_adapters,
    merge_adapters,
    with_base_weights,
    write_adapters,
)
from ovis_model.training.arguments import training_arguments, zero_stage
from ovis_model.training.callbacks import MetricsLog, ProgressBar
from ovis_model.training.destination import Destination
from ovis_model.training.disk_space import DiskSpace, disk_need
from ovis_model.training.environment import (
    from_main_process,
    is_main_process,
    join_deepspeed,
    process_group,
    wait_for_all,
)
from ovis_model.training.execution import (
    apply_kernels,
    attention_in_use,
    check_execution,
    describe_execution,
    quantization,
)
from ovis_model.training.faults import CrashPoint
from ovis_model.training.generation_samples import GenerationSamples
from ovis_model.training.holdout import Holdout
from ovis_model.training.inputs import TrainingInputs, read_extracted
from ovis_model.training.interruption import Interruption, Phase
from ovis_model.training.micro_batch import reduced, reductions
from ovis_model.training.model_selection import ModelSelection, check_holdout
from ovis_model.training.optimizer_state import running_groups
from ovis_model.training.out_of_memory import answering_out_of_memory
from ovis_model.training.packed_rows import PackedDataset, pack_samples
from ovis_model.training.report import ModuleReport, PackingReport, TrainReport
from ovis_model.training.safeguards import Safeguards
from ovis_model.training.stages import Stage, run_stages
from ovis_model.training.train_modules import (
    count_parameters,
    freeze_others,
    learning_rates,
    rates_by_module,
)
from ovis_model.training.trainer import OvisTrainer
from ovis_model.training.xray import write_xray

CSV_COLUMNS = ("step", "loss", "learning_rate", "grad_norm")

log = logging.getLogger(__name__)


def train(  # noqa: PLR0913 - every path is given by name
    config: TrainConfig,
    *,
    data: Path,
    output: Path,
    resume: Path,
    metrics_log: Path,
    loss_csv: Path,
    xray: Path | None = None,
    inputs_digest: str = "",
) -> TrainReport:
    """Train on what the extract step wrote.

    Args:
        config: The train section.
        data: Folder with train.jsonl, holdout.jsonl, media and manifest.json.
        output: Model folder to write, in the official layout.
        resume: Folder of checkpoints that belong to these inputs alone.
        metrics_log: File that gets a JSON line per logging step.
        loss_csv: File that gets the loss curve.
        xray: Page that tells what was learned and what moved.
        inputs_digest: Names the inputs; travels in the model folder's lineage.json.

    Returns:
        The report, the same in every process.

    Raises:
        ConfigError: If the configuration cannot be used.
        DataError: If a sample cannot be trained on.
        CheckpointError: If the base model or a checkpoint does not fit.
        TrainingError: If training cannot go on, or the result must not be used.
        TrainingStopped: If SIGTERM or SIGUSR1 came; the same call goes on where it stopped.
    """
    inputs = read_extracted(data)
    where = Destination(output, resume, metrics_log, loss_csv, xray=xray)
    return train_on(config, inputs, where=where, inputs_digest=inputs_digest)


def train_on(
    config: TrainConfig, inputs: TrainingInputs, *, where: Destination, inputs_digest: str = ""
) -> TrainReport:
    """Train on samples that are already read; `train` says what may go wrong."""
    for one in config.stage_configs():
        check_holdout(one, inputs.holdout)
    with Interruption() as interruption, process_group():
        return run_stages(
            config,
            where,
            lambda stage: _train_stage(stage, inputs, interruption, inputs_digest=inputs_digest),
        )


def _train_stage(
    stage: Stage, inputs: TrainingInputs, interruption: Interruption, *, inputs_digest: str
) -> TrainReport:
    interruption.enter(Phase.BEFORE)
    # No process gets to a step, and so to a new decision, before all of them have read these.
    where, found = stage.where, reductions(stage.where.resume)
    config = reduced(stage.config, found)
    prepared = prepare(config, inputs, where, interruption)
    trainer, processor = prepared.trainer, prepared.processor
    trainer.add_callback(_disk_space(config, trainer, where))
    trainer.group_by = stage.config.per_device_train_batch_size
    with answering_out_of_memory(config, trainer, where.resume):
        _run(trainer, where.resume)
    trainer.load_best()
    report = _report(config, trainer, inputs, prepared.extents)
    report = report.model_copy(update={"micro_batch_reductions": tuple(found)})
    weights = trainer.gathered_weights()
    if is_main_process():
        digests = {"data_digest": inputs.digest, "inputs_digest": inputs_digest}
        lineage = {**stage.lineage, **digests}
        write_xray(trainer, weights, Path(config.ovis_pretrained_path), where)
        _save(stage, trainer, processor, weights, lineage=lineage)
        faults.reach(CrashPoint.PUBLICATION, step=trainer.state.global_step)
        write_text(where.loss_csv, _loss_curve(trainer.state.log_history))
        shutil.rmtree(where.resume, ignore_errors=True)
    wait_for_all()
    return report


@dataclass(frozen=True)
class Prepared:
    """A training that can begin.

    Attributes:
        trainer: With model, data and optimizer groups.
        extents: Size of each sample.
        processor: Of the base model, with the settings of this training.
    """

    trainer: OvisTrainer
    extents: list[Extent]
    processor: Ovis2_5Processor


def prepare(
    config: TrainConfig,
    inputs: TrainingInputs,
    where: Destination,
    interruption: Interruption | None = None,
) -> Prepared:
    """Get ready to train, inside a process group; `train` says what may go wrong."""
    arguments = training_arguments(config, resume=where.resume)
    check_execution(config, arguments)
    if arguments.deepspeed is not None:
        join_deepspeed()
    processor = Ovis2_5Processor.from_pretrained(config.ovis_pretrained_path).with_settings(
        pixel_limits=config.pixel_limits, frame_sampling=inputs.frame_sampling
    )
    safeguards = Safeguards.of(config, arguments, interruption or Interruption())
    trainer, extents = _prepare(config, arguments, inputs, processor, where, safeguards)
    return Prepared(trainer, extents, processor)


def _prepare(  # noqa: PLR0913, PLR0917 - all that a training is made of
    config: TrainConfig,
    arguments: TrainingArguments,
    inputs: TrainingInputs,
    processor: Ovis2_5Processor,
    where: Destination,
    safeguards: Safeguards,
) -> tuple[OvisTrainer, list[Extent]]:
    """Do everything that can fail before the first step: media first, then the model."""
    dataset = ConversationDataset(
        inputs.train,
        media_root=inputs.media_root,
        processor=processor,
        cache=config.cache_encoded_samples,
    )
    extents = dataset.extents()
    check_extents(
        inputs.train,
        extents,
        multimodal_max_length=config.multimodal_max_length,
        text_max_length=config.text_max_length,
    )
    model = _load_base(config, arguments)
    rates = learning_rates([name for name, _ in model.named_parameters()], config)
    freeze_others(model, rates)
    holdout = _holdout(config, arguments, inputs, processor)
    samples = GenerationSamples(config, holdout.dataset, where) if config.sample_steps else None
    rows = pack_samples(dataset, extents, config, arguments, model.config)
    trainer = OvisTrainer(
        model=model,
        args=arguments,
        train_dataset=PackedDataset(dataset, rows) if rows else dataset,
        collator=PackingCollator()
        if rows
        else DataCollatorForMultimodalDataset(pad_id=processor.token_ids.pad),
        lengths=[extent.num_tokens for extent in extents],
        rates=rates,
        keep_checkpoints=config.save_total_limit,
        callbacks=[ProgressBar(), MetricsLog(where), *([samples] if samples else [])],
        safeguards=safeguards,
        holdout=holdout,
        selection=ModelSelection(config),
    )
    if config.cache_visual_tokens:
        trainer.keep_visual_tokens()
    picked = describe_execution(config, model, arguments)
    log.info("picked: %s", "; ".join(f"{key} {what}" for key, what in picked.items()))
    return trainer, extents


def _holdout(
    config: TrainConfig,
    arguments: TrainingArguments,
    inputs: TrainingInputs,
    processor: Ovis2_5Processor,
) -> Holdout:
    dataset = ConversationDataset(
        inputs.holdout,
        media_root=inputs.media_root,
        processor=processor,
        cache=config.cache_encoded_samples,
    )
    return Holdout(dataset, config, arguments)


def _load_base(
    config: TrainConfig, arguments: TrainingArguments
) -> Ovis2_5ForConditionalGeneration:
    # DeepSpeed keeps float32 masters of bfloat16 weights; without it, autocast needs float32.
    half = arguments.bf16 and arguments.deepspeed is not None
    model = load_model(
        Path(config.ovis_pretrained_path),
        dtype=torch.bfloat16 if half else torch.float32,
        attn_implementation=config.attn_implementation,
        quantization=quantization(config, arguments),
        verify=is_main_process(),  # once is enough, and 18 GB take a while
    )
    words = model.config.visual_vocab_size
    if config.visual_vocab_size not in (None, words):
        raise ConfigError(
            f"train.visual_vocab_size is {config.visual_vocab_size}, but "
            f"{config.ovis_pretrained_path} has {words} visual words; remove the key, or give "
            f"{words}"
        )
    model.checkpointed_parts = config.checkpointed_parts
    apply_kernels(model, arguments)
    if config.lora_r:
        add_adapters(model, config)
    return model


def _run(trainer: OvisTrainer, resume: Path) -> None:
    """Train to the end, from the newest committed checkpoint if there is one."""
    start = _where_to_start(trainer, resume)
    if start is not None:
        log.info("resuming from %s", start)
    interruption = trainer.safeguards.interruption
    interruption.enter(Phase.TRAINING)
    with trainer.safeguards.watchdog:
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    interruption.check(trainer.state)
    interruption.enter(Phase.AFTER)
    if trainer.state.global_step < 1:
        raise TrainingError(
            "training ended without one optimizer step, so the result would be the base model; "
            "raise train.max_steps or train.num_train_epochs"
        )


def _where_to_start(trainer: OvisTrainer, resume: Path) -> Path | None:
    """Have the first process look: it takes a while for large files, and all must agree."""
    found: Path | CheckpointError | None = None
    if is_main_process():
        checkpoints.remove_uncommitted(resume)
        try:
            found = checkpoints.newest_committed(resume, trainer.layout)
            checkpoints.set_aside_newer(resume, found)
        except CheckpointError as error:
            found = error
    found = from_main_process(found)
    if isinstance(found, CheckpointError):
        raise found
    return found


def _disk_space(config: TrainConfig, trainer: OvisTrainer, where: Destination) -> DiskSpace:
    args = trainer.args
    need = disk_need(trainer.network, optimizer=args.optim, stage=zero_stage(args))
    keep = config.save_total_limit
    return DiskSpace(need, resume=where.resume, output=where.output, keep=keep)


def _report(
    config: TrainConfig,
    trainer: OvisTrainer,
    inputs: TrainingInputs,
    extents: list[Extent],
) -> TrainReport:
    args, state, model = trainer.args, trainer.state, trainer.network
    assert trainer.holdout is not None  # `_prepare` gives it one
    holdout = trainer.holdout.measure(trainer.model_wrapped)
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    rates = {name: one.peak_learning_rate for name, one in running_groups(trainer).items()}
    counts = rates_by_module(model, rates)
    return TrainReport(
        steps=state.global_step,
        epochs=round(state.epoch or 0.0, 4),
        data_name=config.data_name,
        samples=len(inputs.train),
        holdout_samples=len(inputs.holdout),
        tokens=sum(extent.num_tokens for extent in extents),
        supervised_tokens=sum(extent.num_supervised for extent in extents),
        longest_sample_tokens=max(extent.num_tokens for extent in extents),
        first_loss=round(losses[0], 6),
        final_loss=round(losses[-1], 6),
        holdout_loss=holdout.get("eval_loss"),
        weights_step=trainer.weights_step,
        parameters=count_parameters(model),
        trainable_parameters=count_parameters(model, trainable_only=True),
        modules=[
            ModuleReport(module=module, learning_rate=rate, parameters=count)
            for (module, rate), count in counts.items()
        ],
        world_size=args.world_size,
        effective_batch_size=args.per_device_train_batch_size
        * args.gradient_accumulation_steps
        * args.world_size,
        deepspeed=args.deepspeed is not None,
        zero_stage=zero_stage(args) or 0,
        dtype=str(model.dtype).removeprefix("torch."),
        attn_implementation=attention_in_use(model, args),
        execution=describe_execution(config, model, args),
        device=args.device.type,
        packing=_packing_report(trainer),
    )


def _packing_report(trainer: OvisTrainer) -> PackingReport | None:
    if not isinstance(trainer.train_dataset, PackedDataset):
        return None
    rows = trainer.train_dataset.rows
    return PackingReport(
        rows=len(rows), fill=round(rows.fill, 4), imbalance=round(rows.imbalance(), 4)
    )


def _save(
    stage: Stage,
    trainer: OvisTrainer,
    processor: Ovis2_5Processor,
    weights: dict[str, Tensor],
    *,
    lineage: dict[str, Any],
) -> None:
    """Write the model folder; it appears whole, in the place of the one before."""
    config = stage.config
    base = Path(config.ovis_pretrained_path)
    with replacing(stage.where.output) as folder:
        if config.lora_r:
            write_adapters(trainer.network, weights, folder / ADAPTER_FOLDER, base=base.name)
            if config.quantize_base != "none":  # pragma: no cover - gpu
                weights = with_base_weights(weights, base)
            weights = merge_adapters(weights, config)
        write_checkpoint(trainer.network, processor, folder, base=base, state_dict=weights)
        _write_json(folder / "train_config.json", stage.recorded.model_dump(mode="json"))
        _write_json(folder / "lineage.json", lineage)
        checkpoints.write_manifest(folder, steps=trainer.weights_step)
        faults.reach(CrashPoint.MODEL, step=trainer.state.global_step)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def _loss_curve(log_history: list[dict[str, Any]]) -> str:
    table = io.StringIO()
    rows = csv.DictWriter(table, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    rows.writeheader()
    rows.writerows(entry for entry in log_history if "loss" in entry)
    return table.getvalue()
