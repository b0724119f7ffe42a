"""Which weights a training hands over, the last or the best on the holdout, and when it stops.

Everything is read from the trainer's log, which travels in every checkpoint: a resumed training
decides as an uninterrupted one does.
"""
# ruff: noqa: ARG002 - transformers calls every callback with all of its arguments

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ovis_model.data.loss_groups import PARTS
from ovis_model.data.schema import Sample
from ovis_model.errors import ConfigError
from ovis_model.train_config import TrainConfig
from ovis_model.training.group_losses import group_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """One look at the holdout."""

    step: int
    loss: float


def evaluations(history: Iterable[Mapping[str, float]], metric: str) -> list[Evaluation]:
    """Pick the evaluations out of a trainer's log, in its order."""
    return [Evaluation(int(e["step"]), e[metric]) for e in history if metric in e]


def best(seen: Sequence[Evaluation]) -> Evaluation | None:
    """Return the one with the lowest loss, the first of several; None without any."""
    return min(seen, key=lambda evaluation: evaluation.loss, default=None)


def num_without_progress(seen: Sequence[Evaluation], threshold: float) -> int:
    """Count the latest evaluations that did not fall below all before by more than a threshold.

    Example:
        >>> seen = [Evaluation(step, loss) for step, loss in ((1, 2.0), (2, 1.5), (3, 1.49))]
        >>> num_without_progress(seen, 0.0), num_without_progress(seen, 0.1)
        (0, 1)
    """
    lowest, count = float("inf"), 0
    for evaluation in seen:
        count = 0 if evaluation.loss < lowest - threshold else count + 1
        lowest = min(lowest, evaluation.loss)
    return count


def check_holdout(config: TrainConfig, holdout: Sequence[Sample]) -> None:
    """Refuse what cannot be measured, before anything is loaded.

    Raises:
        ConfigError: If the holdout is needed and empty, or has no sample that
            `metric_for_best_model` is about.
    """
    wanted = [f"eval_strategy: {config.eval_strategy}"] * (config.eval_strategy != "no")
    wanted += [f"sample_steps: {config.sample_steps}"] * (config.sample_steps is not None)
    if wanted and not len(holdout):
        raise ConfigError(
            f"train: {' and '.join(wanted)} needs held out samples and there are none. Raise "
            "validate.holdout_fraction (outside the pipeline, give eval_data_path), or remove it"
        )
    if config.selects_by_loss:
        sources = {group_name(one.source) for one in holdout if one.source is not None}
        known = ["eval_loss", *(f"eval_loss/{name}" for name in (*PARTS, *sorted(sources)))]
        if config.best_metric not in known:
            raise ConfigError(
                f"train: metric_for_best_model is {config.metric_for_best_model!r}, but the "
                f"holdout tells {', '.join(known)}; choose one of them"
            )


class ModelSelection(TrainerCallback):
    """Asks for evaluations at the end of epochs, keeps the best weights, ends a training early.

    Attributes:
        stopped: Whether training was ended early.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.stopped = False

    def best(self, state: TrainerState) -> Evaluation | None:
        """Return the evaluation whose weights are to be handed over; None for the last weights."""
        if not self.config.load_best_model_at_end:
            return None
        return best(evaluations(state.log_history, self.config.best_metric))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Evaluate with the last step of an epoch, and so before a checkpoint of it is written.

        transformers evaluates later: a training killed in between would lose the evaluation.
        """
        is_last = (state.epoch or 0.0).is_integer() or state.global_step >= state.max_steps
        if self.config.eval_strategy == "epoch" and is_last:
            control.should_evaluate = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Leave out the evaluation that came with the last step."""
        if self.config.eval_strategy == "epoch":
            control.should_evaluate = False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the best weights so far, and end a training that got no better for too long."""
        seen = evaluations(state.log_history, self.config.best_metric)
        newest = seen[-1]
        if self.config.load_best_model_at_end and best(seen) == newest:
            control.should_save = True
        patience = self.config.early_stopping_patience
        count = num_without_progress(seen, self.config.early_stopping_threshold)
        if patience is not None and count >= patience:
            lowest = best(seen)
            assert lowest is not None
            log.info(
                "stopping at step %d: %s was lowest (%.4f) at step %d, %d evaluation(s) ago",
                *(newest.step, self.config.best_metric, lowest.loss, lowest.step, count),
            )
            self.stopped = control.should_training_stop = True
