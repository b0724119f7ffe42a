"""Exams of a few questions on plain pictures, and a backend that says what it is told."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ovis_model.errors import DataError
from ovis_model.evaluation.exam import Answer, Exam, Failure, Question, seen_media
from ovis_model.evaluation.predictions import TokenCounts
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.messages import question_message
from ovis_model.inference.pictures import Media
from ovis_model.inference.thinking import ParsedOutput

SETTINGS = GenerationSettings(max_new_tokens=36, enable_thinking=True, thinking_budget=4)


def question(index, *, colour=0, text="Which digit is this?", truth="7", broken=False):
    """One question; equal colours are one picture, None is none."""
    name = hashlib.sha256(str(colour).encode()).hexdigest()
    media = () if colour is None else (name,)

    def open_media(sampling):
        if broken:
            raise DataError(f"item {index!r}: no picture")
        picture = Image.new("RGB", (32, 32), (colour or 0, 0, 0))
        return Media(images=(picture,) * len(media))

    return Question(
        index=str(index),
        prompt=text,
        messages=[question_message(text, num_images=len(media))],
        truth=truth,
        media=media,
        open_media=open_media,
        row_hash=hashlib.sha256(f"{text}{truth}{media}".encode()).hexdigest(),
        cluster=name,
    )


def mark_exactly(row):
    """Right if the response is the truth."""
    score = float(row.response == row.truth)
    status = "scored" if row.response else "invalid"
    return row.model_copy(
        update={"extracted": row.response, "score": score, "value": score, "status": status}
    )


def exam(questions, *, name="digits", settings=SETTINGS, seeds=(0,)):
    """An exam of these questions."""
    return Exam(
        name=name,
        fingerprint="0" * 64,
        metric="exact",
        questions=questions,
        settings=settings,
        mark=mark_exactly,
        seeds=seeds,
    )


def output(answer="7", *, closed="natural", finish_reason="stop", thinking="hm"):
    """A parsed output of a few tokens."""
    return ParsedOutput(
        text=f"<think>{thinking}</think>{answer}",
        thinking=thinking,
        answer=answer,
        finish_reason=finish_reason,
        thinking_closed=closed,
        thinking_tokens=2,
        answer_tokens=1,
        generated_tokens=5,
    )


class Killed(BaseException):
    """Stands for the end of a process, which nobody catches."""


@dataclass
class ScriptedBackend:
    """Answers by a script: index to what happens; everything else is answered with 7.

    Attributes:
        script: A text to answer, a whole output, a `Failure`, or an exception to raise.
        asked: What it was asked, in order.
    """

    script: dict[str, Any] = field(default_factory=dict)
    model: str = "m"
    conditions: dict[str, str] = field(default_factory=lambda: {"backend": "scripted"})
    provenance: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def check(self, settings):
        """Everything is fine."""

    def answer(self, asked, settings, pixels):
        """Answer one question at a time."""
        for one in asked:
            self.asked.append(one.key)
            said = self.script.get(one.question.index, "7")
            if isinstance(said, BaseException):
                raise said
            if isinstance(said, Failure):
                yield [(one, said)]
                continue
            parsed = output(said) if isinstance(said, str) else said
            media = tuple(seen_media(one.question, one.question.open_media(None)))
            yield [(one, Answer(parsed, TokenCounts(thinking=2), media, latency_s=0.5))]
