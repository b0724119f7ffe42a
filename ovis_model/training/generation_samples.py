r"""What the model answers to held out prompts while it is trained, for a person to read.

{"step": 200, "id": "s7", "prompt": "<image>\nWhich digit is this?", "truth": "8", "output": "8"}
"""
# ruff: noqa: ARG002 - transformers calls every callback with all of its arguments

import json
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ovis_model.data.dataset import ConversationDataset, Example
from ovis_model.processing.processing_ovis2_5 import EncodedSample, pad_batch
from ovis_model.tokens import IGNORE_ID
from ovis_model.train_config import TrainConfig
from ovis_model.training.arguments import zero_stage
from ovis_model.training.destination import Destination, samples_beside


@dataclass(frozen=True)
class Prompt:
    """A held out sample up to its last answer; the text is that of its last question."""

    sample_id: str
    text: str
    encoded: EncodedSample
    truth: list[int]


def prompt_of(example: Example, text: str) -> Prompt | None:
    """Cut a sample before its last answer, as it is encoded in training; None if it has none."""
    encoded = example.encoded
    assert encoded.labels is not None  # a training sample
    learned = (encoded.labels != IGNORE_ID).nonzero()[:, 0]
    if not len(learned):
        return None
    end = int(learned[-1]) + 1
    read = (encoded.labels[:end] == IGNORE_ID).nonzero()[:, 0]
    begin = int(read[-1]) + 1 if len(read) else 0
    if begin == 0 or (encoded.input_ids[end:] < 0).any():  # pictures that follow the answer
        return None
    asked = replace(encoded, input_ids=encoded.input_ids[:begin], labels=None)
    return Prompt(example.sample_id, text, asked, encoded.input_ids[begin:end].tolist())


class GenerationSamples(TrainerCallback):
    """Every `sample_steps`, lets the model continue the first prompts of the holdout, greedily.

    The first process does, while the others wait for it at the next step; at ZeRO-3, where no
    process has all weights, all of them generate the same together.

    Args:
        config: The train section, with `sample_steps` set.
        holdout: The samples, as they are measured.
        where: The file lies beside its metrics log.
    """

    def __init__(
        self, config: TrainConfig, holdout: ConversationDataset, where: Destination
    ) -> None:
        self.config = config
        self.holdout = holdout
        self.path = samples_beside(where.metrics_log)
        self._steps_before = where.steps_before
        self._prompts: list[Prompt] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep what earlier stages, and the steps of a resumed run, have written."""
        if state.is_world_process_zero and self.path.exists():
            done = state.global_step + self._steps_before
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= done]
            self.path.write_text("".join(kept), encoding="utf-8")

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Generate, if this is a step for it."""
        assert self.config.sample_steps is not None
        if state.global_step % self.config.sample_steps:
            return
        if not state.is_world_process_zero and zero_stage(args) != 3:
            return
        step = state.global_step + self._steps_before
        lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines(model, step)]
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(lines)

    @torch.no_grad()
    def _lines(self, model: Any, step: int) -> list[dict[str, Any]]:
        """Answer the prompts together; `train` mode is set again by the next step."""
        prompts = self._prompts = self._find() if self._prompts is None else self._prompts
        if not prompts:
            return []
        tokenizer = self.holdout.processor.tokenizer
        pad_id = self.holdout.processor.token_ids.pad
        batch = pad_batch([prompt.encoded for prompt in prompts], pad_id=pad_id, side="left")
        inputs = {k: v.to(model.device) for k, v in batch.items() if v is not None}
        model.eval()
        answers = model.generate(**inputs, max_new_tokens=self.config.sample_max_new_tokens)
        return [
            {
                "step": step,
                "id": prompt.sample_id,
                "prompt": prompt.text,
                "truth": tokenizer.decode(prompt.truth, skip_special_tokens=True),
                "output": tokenizer.decode(answer, skip_special_tokens=True),
            }
            for prompt, answer in zip(prompts, answers.tolist(), strict=True)
        ]

    def _find(self) -> list[Prompt]:
        """Take the first samples that have an answer to ask for."""
        found: list[Prompt] = []
        for index in range(len(self.holdout)):
            if len(found) == self.config.num_samples:
                break
            turns = self.holdout.samples[index].conversations
            last = max((i for i, turn in enumerate(turns) if turn.role == "gpt"), default=0)
            text = next((t.value for t in reversed(turns[:last]) if t.role == "human"), "")
            prompt = prompt_of(self.holdout[index], text)
            if prompt is not None:
                found.append(prompt)
        return found
