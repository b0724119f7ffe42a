"""What a person and the tracker see while training runs: a line of numbers per logging step."""
# ruff: noqa: ARG002 - transformers calls every callback with all of its arguments

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ovis_model.training.destination import Destination

#: Seconds between two states of the progress bar: on a terminal, and in a log file.
REDRAW_SECONDS, LOG_SECONDS = 0.5, 5.0
#: What a line of the metrics log may hold besides its step.
LOGGED = (
    "loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "visual_tokens_per_second",
    "samples_per_second",
    "tokens_per_row",
    "padding_fraction",
    "data_wait_fraction",
    "peak_memory_gb",
    "gflops_per_second",
    "mfu",
    "epoch",
)
#: And how the names of losses and norms begin that are told of several groups.
LOGGED_GROUPS = ("loss/", "eval_loss", "grad_norm/")
#: What a person sees of a line, and how.
SHOWN = {
    "loss": "loss {:.4f}",
    "learning_rate": "lr {:.2e}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "visual_tokens_per_second": "{:,.0f} visual/s",
    "data_wait_fraction": "data wait {:.0%}",
    "peak_memory_gb": "{:.2f} GB",
    "padding_fraction": "padding {:.0%}",
    "mfu": "MFU {:.0%}",
}


class ProgressBar(TrainerCallback):
    """Steps, remaining time and the last line's numbers: a bar on a terminal, lines in a file."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._numbers = ""
        self._written = 0.0

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
                mininterval=REDRAW_SECONDS,
                # A file would keep every state of the bar, all in one endless line.
                disable=not sys.stderr.isatty(),
            )
            self._begun, self._first = time.monotonic(), state.global_step

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
        """Show the numbers of the line."""
        if self._bar is None or not logs:
            return
        if "loss" in logs:
            shown = [text.format(logs[name]) for name, text in SHOWN.items() if name in logs]
            self._numbers = ", ".join(shown)
            self._bar.set_postfix_str(self._numbers, refresh=False)
            self._write(state)
        elif "eval_loss" in logs:
            self._bar.write(
                f"train: step {state.global_step}, holdout loss {logs['eval_loss']:.4f}",
                file=sys.stderr,
            )

    def _write(self, state: TrainerState) -> None:
        """Write a line where there is no bar, the last one in any case."""
        assert self._bar is not None
        now, is_last = time.monotonic(), state.global_step >= state.max_steps
        if not self._bar.disable or (now - self._written < LOG_SECONDS and not is_last):
            return
        self._written = now
        pace = (now - self._begun) / max(state.global_step - self._first, 1)
        left = tqdm.format_interval(pace * (state.max_steps - state.global_step))
        steps = f"step {state.global_step}/{state.max_steps}, {left} left"
        sys.stderr.write(f"train: {steps}, {self._numbers}\n")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Leave the finished bar standing."""
        if self._bar is not None:
            self._bar.close()


class MetricsLog(TrainerCallback):
    """One JSON object per logging step, for whoever follows the file while training runs."""

    def __init__(self, where: Destination) -> None:
        self.path = where.metrics_log
        self._before = where.metrics_before
        self._steps_before = where.steps_before

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the file with what came before: earlier stages, and steps of a resumed run."""
        if state.is_world_process_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            history = [entry for entry in state.log_history if _is_logged(entry)]
            lines = [self._line(entry, state.max_steps) for entry in history]
            if self._before is not None:
                lines.insert(0, self._before.read_text(encoding="utf-8"))
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
                file.write(self._line({**logs, "step": state.global_step}, state.max_steps))

    def _line(self, entry: Mapping[str, float], max_steps: int) -> str:
        kept = {name: entry[name] for name in LOGGED if name in entry}
        kept |= {name: entry[name] for name in entry if name.startswith(LOGGED_GROUPS)}
        steps = {"step": entry["step"], "steps": max_steps}
        moved = {name: number + self._steps_before for name, number in steps.items()}
        return json.dumps({**moved, **kept}) + "\n"


def _is_logged(entry: Mapping[str, float]) -> bool:
    return "loss" in entry or "eval_loss" in entry
