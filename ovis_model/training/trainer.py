"""transformers' Trainer, where this project needs it to be stricter or quicker.

What differs, and nothing else: the optimizer has one group per learning rate, the data order
is a function of seed and epoch, a loss that is no number stops the run with the sample ids, a
checkpoint counts only once it is committed, and metrics go to a file while training runs.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ovis_model.data.collator import (
    LOSS_GROUPS,
    NUM_SUPERVISED,
    NUM_TOKENS,
    SAMPLE_IDS,
    SHAPE,
    DataCollatorForMultimodalDataset,
    PackingCollator,
)
from ovis_model.data.dataset import ConversationDataset
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.training import checkpoints, faults
from ovis_model.training.arguments import data_seed, zero_stage
from ovis_model.training.checkpoints import RunLayout
from ovis_model.training.environment import wait_for_all
from ovis_model.training.faults import CrashPoint
from ovis_model.training.gradient_norms import GradientNorms
from ovis_model.training.group_losses import GroupLosses
from ovis_model.training.holdout import Holdout
from ovis_model.training.log_state import LogState
from ovis_model.training.model_selection import ModelSelection
from ovis_model.training.packed_rows import PackedDataset, RowSampler
from ovis_model.training.safeguards import Safeguards
from ovis_model.training.step_guard import MicroBatch
from ovis_model.training.throughput import Throughput
from ovis_model.training.train_modules import optimizer_groups, what_learns
from ovis_model.training.visual_cache import DigestingCollator, VisualCache, choose_kind

#: Batches that are sorted by length together when train_sampling_strategy groups by length.
MEGABATCH_FACTOR = 50
#: Keeps the orders of neighbouring seeds apart.
EPOCH_STRIDE = 100_003


class EpochSampler(Sampler[int]):
    """An order that depends on seed and epoch only, so that a resumed run sees the same one.

    Args:
        lengths: Tokens of each sample.
        seed: Of the order.
        shuffle: Without it, file order.
        batch_size: If given, samples of similar length end up in the same batch of this size.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        seed: int,
        shuffle: bool = True,
        batch_size: int | None = None,
    ) -> None:
        self.lengths = lengths
        self.seed = seed
        self.shuffle = shuffle
        self.batch_size = batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(range(len(self)))
        generator = torch.Generator().manual_seed(self.seed * EPOCH_STRIDE + self.epoch)
        order: list[int] = torch.randperm(len(self), generator=generator).tolist()
        if self.batch_size is None:
            return iter(order)
        return iter(self._group_by_length(order, self.batch_size, generator))

    def _group_by_length(
        self, order: list[int], batch_size: int, generator: torch.Generator
    ) -> list[int]:
        """Sort stretches of the shuffled order by length, then shuffle the batches cut from it."""
        stretch = batch_size * MEGABATCH_FACTOR
        by_length = [
            index
            for start in range(0, len(order), stretch)
            for index in sorted(order[start : start + stretch], key=lambda i: -self.lengths[i])
        ]
        batches = [by_length[i : i + batch_size] for i in range(0, len(order), batch_size)]
        # A short last batch stays last: in the middle it would shift every later one.
        whole = len(order) // batch_size
        mixed = torch.randperm(whole, generator=generator).tolist()
        return [index for i in [*mixed, *range(whole, len(batches))] for index in batches[i]]


class BatchInWork(NamedTuple):
    """The newest micro-batch, for messages; `rows` is [rows, positions]."""

    sample_ids: list[str]
    num_tokens: int
    rows: torch.Size


class OvisTrainer(Trainer):
    """Trains an Ovis2.5 model on conversations.

    Args:
        model: The model, its frozen parameters already marked.
        args: From `training_arguments`.
        train_dataset: The samples, or rows of them.
        collator: Makes batches of them.
        lengths: Tokens of each sample.
        rates: Learning rate of each parameter that learns, by name.
        keep_checkpoints: How many committed checkpoints stay on disk.
        callbacks: Progress and metrics.
        safeguards: Are told what is in work, and end a training that must not go on.
        holdout: What `evaluate` measures.
        selection: Decides which weights are handed over; without it, the last.
    """

    def __init__(  # noqa: PLR0913 - all by name
        self,
        *,
        model: Ovis2_5ForConditionalGeneration,
        args: TrainingArguments,
        train_dataset: ConversationDataset | PackedDataset,
        collator: DataCollatorForMultimodalDataset | PackingCollator,
        lengths: Sequence[int],
        rates: Mapping[str, float],
        keep_checkpoints: int,
        callbacks: list[TrainerCallback],
        safeguards: Safeguards,
        holdout: Holdout | None = None,
        selection: ModelSelection | None = None,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=holdout and holdout.dataset,
            data_collator=collator,
            callbacks=[*callbacks, *safeguards.callbacks, *([selection] if selection else [])],
        )
        self.remove_callback(PrinterCallback)
        #: The same object as `self.model`, under the type it has.
        self.network = model
        self.lengths = lengths
        self.rates = rates
        self.keep_checkpoints = keep_checkpoints
        self.holdout = holdout
        self.selection = selection
        #: Set where what the frozen tower says of media may be kept.
        self.visual_cache: VisualCache | None = None
        self.in_work = BatchInWork([], 0, torch.Size((0, 0)))
        #: Samples per process that are sorted by length together; a micro-batch that had to
        #: become smaller must not change the order of an epoch.
        self.group_by: int = args.per_device_train_batch_size
        self.safeguards = safeguards
        self._module_norms: dict[str, float] = {}
        self._order: EpochSampler | RowSampler | None = None
        self._losses = GroupLosses()
        self._norms = GradientNorms(model)
        self._work = Throughput(model, rates, device=args.device, world_size=args.world_size)

    def keep_visual_tokens(self) -> None:
        """Look at each medium once, and keep what the model says of it.

        Raises:
            ConfigError: If that changes while training runs, or ZeRO-3 is used.
        """
        num_blocks = self.network.config.vit.num_hidden_layers
        learning = what_learns(self.rates, num_blocks=num_blocks)
        kind = choose_kind(learning, zero_stage=zero_stage(self.args) or 0)
        self.visual_cache = VisualCache(self.network, kind, self.accelerator.autocast)
        self.data_collator = DigestingCollator(self.data_collator)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer that really runs, with one group per learning rate."""
        # DIVERGES(module-learning-rates): the reference computes these groups and trains without.
        if self.optimizer is None:
            groups = optimizer_groups(
                model or self.network, self.rates, weight_decay=self.args.weight_decay
            )
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.network)
            self.optimizer = optimizer_class(groups, **options)
            if zero_stage(self.args) == 0:
                # Stages 1 to 3, and 16 bits, look themselves and skip the step.
                self.optimizer.register_step_pre_hook(self._check_gradients_before_step)
        return self.optimizer

    def _get_train_sampler(self, _train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        if isinstance(self.train_dataset, PackedDataset):
            self._order = RowSampler(self.train_dataset.rows)
            return self._order
        strategy = self.args.train_sampling_strategy
        self._order = EpochSampler(
            self.lengths,
            seed=data_seed(self.args),
            shuffle=strategy != "sequential",
            batch_size=self.group_by * self.args.world_size
            if strategy == "group_by_length"
            else None,
        )
        return self._order

    def _run_epoch(self, model: nn.Module, epoch: int, *args: Any, **kwargs: Any) -> None:
        # The loader of a run resumed within an epoch wraps the sampler once more, and at several
        # processes the epoch no longer reaches it: the rest of epoch 2 would be that of epoch 0.
        assert self._order is not None  # made with the loader
        self._order.set_epoch(epoch)
        super()._run_epoch(model, epoch, *args, **kwargs)  # type: ignore[no-untyped-call]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Run forward of one micro-batch; looked at before backward, for DeepSpeed steps there.

        Raises:
            TrainingError: In every process, naming the samples, if nothing in a batch is learned,
                or the loss is no number or a spike.
        """
        batch = self.in_work = BatchInWork(
            inputs.pop(SAMPLE_IDS), inputs.pop(NUM_TOKENS), inputs["input_ids"].shape
        )
        micro_batch = MicroBatch(
            step=self.state.global_step + 1,
            sample_ids=batch.sample_ids,
            num_supervised=inputs.pop(NUM_SUPERVISED),
            closes_step=self.accelerator.sync_gradients,
        )
        self.safeguards.begin(micro_batch)
        self._work.add(batch.num_tokens, inputs.pop(SHAPE), rows=batch.rows)
        groups = inputs.pop(LOSS_GROUPS)
        if self.visual_cache is not None:
            known = self.visual_cache.fill_in(inputs)
            self._work.leave_out(known, tower_alone=self.visual_cache.kind == "features")
        result, outputs = super().compute_loss(
            model, {**inputs, "use_cache": False}, True, num_items_in_batch
        )
        self.safeguards.check(result.detach(), micro_batch)
        self._losses.add(outputs.token_losses, groups)
        return (result, outputs) if return_outputs else result

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        # fp16 overflows now and then on purpose: its loss scale is found by trying.
        if norm is not None and not self.args.fp16:
            self.safeguards.guard.check_gradient(float(norm), step=self.state.global_step + 1)
        if not self.is_deepspeed_enabled:
            self._norms.measure()
        self._module_norms = self._norms.take(None if norm is None else float(norm))
        return norm

    def _check_gradients_before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        norm = float(nn.utils.get_total_norm(gradients))
        self.safeguards.guard.check_gradient(norm, step=self.state.global_step + 1)

    def _will_log(self) -> bool:
        step = self.state.global_step + 1
        is_first = step == 1 and self.args.logging_first_step
        return is_first or step % self.state.logging_steps == 0 or step >= self.state.max_steps

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)  # type: ignore[no-untyped-call]
        if self.is_deepspeed_enabled:
            self._norms.watch(self.model_wrapped)
        return prepared

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any) -> Any:
        """Fetch the batches of a step, and note how long that takes."""
        self._norms.is_wanted = self._will_log()
        return super().get_batch_samples(self._work.waiting_for(epoch_iterator), *args)

    def floating_point_ops(self, _inputs: Mapping[str, Any]) -> int:
        """Skip the count: it walks over all modules in every step and nothing reads it."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add throughput, losses of groups and norms of modules since the last line, and log."""
        if "loss" in logs:
            logs.update(self._work.since_last_time())
            logs.update(self._module_norms)
            logs.update({k: v for k, v in self._losses.means("loss").items() if k != "loss"})
        super().log(logs, start_time)

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Measure the loss on the holdout, and log it; every process takes part."""
        assert self.holdout is not None  # or transformers had refused to evaluate
        watchdog = self.safeguards.watchdog
        metrics = self.holdout.measure(self.model_wrapped, on_batch=watchdog.sign_of_life)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write weights, unless DeepSpeed's part of a checkpoint holds them already."""
        if not self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # The finished model follows at once, and a run resumed at its end would step once more.
        if self.state.global_step >= self.state.max_steps or self._stopped_early:
            return
        step, resume = self.state.global_step, Path(str(self.args.output_dir))
        folder = checkpoints.folder_of(resume, step)
        if self.args.should_save and folder.exists():
            shutil.rmtree(folder)
        wait_for_all()
        if self.args.should_save:
            folder.mkdir(parents=True)
        faults.reach(CrashPoint.CHECKPOINT, step=step)
        wait_for_all()
        super()._save_checkpoint(model, trial)
        faults.reach(CrashPoint.FILES, step=step)
        wait_for_all()
        # What follows takes a while for large files; the others wait for the first process.
        self.safeguards.watchdog.sign_of_life()
        if self.args.should_save:
            checkpoints.commit(folder, step=step, layout=self.layout)
            checkpoints.rotate(resume, keep=self.keep_checkpoints, spare=self.weights_step)
        wait_for_all()

    @property
    def layout(self) -> RunLayout:
        """How this training is spread, for its checkpoints."""
        args, processes = self.args, self.args.world_size
        order = str(args.train_sampling_strategy)
        if isinstance(self.train_dataset, PackedDataset):
            # Which samples share a row depends on how many rows are worked on at a time.
            order = f"packed, {processes}-process"
        elif order == "group_by_length":
            order = f"group_by_length, {self.group_by * processes}-sample"
        return RunLayout(
            world_size=processes,
            zero_stage=zero_stage(args),
            batch_size=self._train_batch_size * args.gradient_accumulation_steps * processes,
            order=order,
        )

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        state = LogState(
            last_logged_step=self._globalstep_last_logged,
            loss=float(self._tr_loss).hex(),
            group_losses={
                name: (total.hex(), count)
                for name, (total, count) in self._losses.totals().items()
            },
            recent_losses=[loss.hex() for loss in self.safeguards.guard.recent_losses],
        )
        state.write(Path(output_dir), rank=self.args.process_index)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        assert checkpoint is not None  # or the Trainer does not come here
        args = self.args
        state = LogState.read(
            Path(checkpoint), rank=args.process_index, world_size=args.world_size
        )
        self._globalstep_last_logged = state.last_logged_step
        self._tr_loss.fill_(float.fromhex(state.loss))
        self._losses.restore(
            {name: (float.fromhex(sum_), n) for name, (sum_, n) in state.group_losses.items()}
        )
        self.safeguards.guard.recent_losses.extend(map(float.fromhex, state.recent_losses))

    @property
    def _stopped_early(self) -> bool:
        return self.selection is not None and self.selection.stopped

    @property
    def weights_step(self) -> int:
        """Step of the weights that are handed over: the last, or the best one."""
        best = self.selection.best(self.state) if self.selection else None
        return self.state.global_step if best is None else best.step

    def load_best(self) -> None:
        """Return to the weights that are to be handed over; every process must call it.

        Raises:
            CheckpointError: If their checkpoint has been damaged.
        """
        if self.weights_step == self.state.global_step:
            return
        folder = checkpoints.folder_of(Path(str(self.args.output_dir)), self.weights_step)
        checkpoints.require_whole(folder)
        self.state.best_model_checkpoint = str(folder)
        self._load_best_model()

    def gathered_weights(self) -> dict[str, Tensor]:
        """Collect the whole model's weights; every process must call it."""
        state: dict[str, Tensor] = self.accelerator.get_state_dict(self.model_wrapped)
        return state
