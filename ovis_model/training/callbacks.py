"""What a person and the tracker see while training runs."""
# ruff: noqa: ARG002 - transformers calls every callback with all of its arguments

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

#: Seconds between two states of the progress bar: on a terminal, and in a log file.
REDRAW_SECONDS, LOG_SECONDS = 0.5, 5.0
#: What a line of the metrics log may hold besides its step.
LOGGED = (
    "loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "tokens_per_row",
    "padding_fraction",
    "gflops_per_second",
    "mfu",
    "epoch",
)
#: And how the names of losses and norms begin that are told of several groups.
LOGGED_GROUPS = ("loss/", "eval_loss")


class ProgressBar(TrainerCallback):
    """A bar on stderr with rate, remaining time and loss; in a log file a line now and then."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Draw the bar, continuing where a resumed run stopped."""
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="train",
                unit="step",
                file=sys.stderr,
                dynamic_ncols=True,
                mininterval=REDRAW_SECONDS if sys.stderr.isatty() else LOG_SECONDS,
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Move on by the steps made."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Show the last loss."""
        if self._bar is not None and logs and "loss" in logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Leave the finished bar standing."""
        if self._bar is not None:
            self._bar.close()


class MetricsLog(TrainerCallback):
    """One JSON object per logging step, for whoever follows the file while training runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the file with the steps a resumed run has behind it."""
        if state.is_world_process_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines = [_line(entry) for entry in state.log_history if _is_logged(entry)]
            self.path.write_text("".join(lines), encoding="utf-8")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Have the last step logged wherever it falls."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Append the newest line."""
        if state.is_world_process_zero and logs and _is_logged(logs):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line({**logs, "step": state.global_step}))


def _is_logged(entry: Mapping[str, float]) -> bool:
    return "loss" in entry or "eval_loss" in entry


def _line(entry: Mapping[str, float]) -> str:
    kept = {name: entry[name] for name in LOGGED if name in entry}
    kept |= {name: entry[name] for name in entry if name.startswith(LOGGED_GROUPS)}
    return json.dumps({"step": entry["step"], **kept}) + "\n"
