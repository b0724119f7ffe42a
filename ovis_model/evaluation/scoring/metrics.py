"""The metrics by the names that a benchmark's YAML uses, each with what it needs to know."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.scoring.aggregates import AggregateName
from ovis_model.evaluation.scoring.anls import mark_anls
from ovis_model.evaluation.scoring.chartqa import mark_chartqa
from ovis_model.evaluation.scoring.grounding import iou, mark_box, true_box
from ovis_model.evaluation.scoring.hallusionbench import HallusionIndex, mark_yes_or_no
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.mathvista import MULTIPLE_CHOICE, MathQuestion, mark_mathvista
from ovis_model.evaluation.scoring.mmmu import mark_mmmu
from ovis_model.evaluation.scoring.multiple_choice import mark_choice
from ovis_model.evaluation.scoring.ocrbench import mark_ocrbench
from ovis_model.evaluation.scoring.own import (
    contains,
    exact,
    json_field,
    last_number,
    number,
    regex,
)
from ovis_model.evaluation.scoring.profiles import DEFAULT_PROFILE, Profile
from ovis_model.evaluation.scoring.videomme import mark_videomme
from ovis_model.evaluation.scoring.vqa import mark_vqa
from ovis_model.inference.grounding import Box


@dataclass(frozen=True)
class MetricOptions:
    """What a benchmark's YAML says about its metric.

    Attributes:
        tolerance: Metric `number`: how far apart two numbers may be.
        relative_tolerance: The same as a fraction of the true number.
        pattern: Metric `regex`: what takes the answer out of the text.
        field: Metric `json_field`: where the value stands.
        profile: The revision that the official rules follow.
    """

    tolerance: float = 0.0
    relative_tolerance: float = 0.0
    pattern: str = ""
    field: str = ""
    profile: Profile = DEFAULT_PROFILE


Rule = Callable[[str, BenchmarkItem, MetricOptions], Mark]
Check = Callable[[BenchmarkItem, MetricOptions], object]


def _accept(item: BenchmarkItem, options: MetricOptions) -> None:
    """Nothing to check."""


@dataclass(frozen=True)
class Metric:
    """A rule, and what a benchmark with it is like.

    Attributes:
        mark: Judges what is left of an output after its thought.
        check: Raises ValueError or DataError for an item that the rule cannot judge.
        aggregate: How marks become a score, unless the YAML says otherwise.
        takes_answers: Whether a cell that holds a list holds several right answers.
        is_graded: Whether part of a point can be had: the mark's value counts, else whether it
            is correct.
    """

    mark: Rule
    check: Check = _accept
    aggregate: AggregateName = "mean"
    takes_answers: bool = False
    is_graded: bool = False

    def credit(self, mark: Mark) -> float:
        """What a mark counts, 0 to 1."""
        return mark.value if self.is_graded else float(mark.correct)

    def highest_credit(self, mark: Mark) -> float:
        """What it would count if a judge took the side of every unresolved answer."""
        return 1.0 if mark.status == "unresolved" else self.credit(mark)


def _best_of(rule: Callable[[str, str, MetricOptions], Mark]) -> Rule:
    """Judge by each right answer, and keep the best mark."""

    def mark(answer: str, item: BenchmarkItem, options: MetricOptions) -> Mark:
        marks = [rule(answer, truth, options) for truth in item.answers]
        return max(marks, key=lambda mark: (mark.correct, mark.value))

    return mark


def _grounding(answer: str, item: BenchmarkItem, _: MetricOptions) -> Mark:
    box, size = _box_and_size(item)
    return mark_box(answer, Box(*box), size)


def _mathvista(answer: str, item: BenchmarkItem, options: MetricOptions) -> Mark:
    return mark_mathvista(answer, _math_question(item), options.profile)


def _math_question(item: BenchmarkItem) -> MathQuestion:
    return MathQuestion(
        question_type=item.columns["question_type"],
        answer_type=item.columns["answer_type"],
        answer=item.answer,
        answer_option=item.columns.get("answer_option", ""),
        options=item.options,
    )


def _check_options(item: BenchmarkItem, _: MetricOptions) -> None:
    if item.answer not in item.options:
        raise ValueError(
            f"the answer {item.answer!r} is none of the options "
            f"{', '.join(item.options) or '(there is none)'}"
        )


def _check_mathvista(item: BenchmarkItem, _: MetricOptions) -> None:
    for column in ("question_type", "answer_type"):
        if column not in item.columns:
            raise ValueError(f"the column {column!r} is empty; MathVista's rule needs it")
    question = _math_question(item)
    if question.question_type == MULTIPLE_CHOICE and not question.answer_option:
        raise ValueError("a multiple choice question needs the column 'answer_option'")


def _check_category(item: BenchmarkItem, _: MetricOptions) -> None:
    if "category" not in item.columns:
        raise ValueError("the column 'category' is empty; it tells formulas from other texts")


def _check_yes_or_no(item: BenchmarkItem, _: MetricOptions) -> None:
    HallusionIndex.parse(item.id)
    if item.answer.lower() not in ("yes", "no"):
        raise ValueError(f"the answer is Yes or No, not {item.answer!r}")


def _check_videomme(item: BenchmarkItem, _: MetricOptions) -> None:
    if item.answer not in tuple("ABCD"):
        raise ValueError(f"the answer is a letter A to D, not {item.answer!r}")


def _box_and_size(
    item: BenchmarkItem,
) -> tuple[tuple[float, float, float, float], tuple[float, float]]:
    if item.box is None or item.size is None or min(item.size) <= 0:
        raise ValueError(
            "a true box in pixels and the image's width and height are needed "
            "(columns bbox_x1, bbox_y1, bbox_x2, bbox_y2, width, height)"
        )
    return item.box, item.size


def _check_number(item: BenchmarkItem, options: MetricOptions) -> None:
    for truth in item.answers:
        value = last_number(truth)
        if value is None or not math.isfinite(value):
            raise ValueError(f"{truth!r} holds no number")
    if options.tolerance < 0 or options.relative_tolerance < 0:
        raise ValueError("tolerance and relative_tolerance must not be below 0")


def _check_regex(item: BenchmarkItem, options: MetricOptions) -> None:
    for pattern in [options.pattern] if options.pattern else item.answers:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error


def _check_field(_: BenchmarkItem, options: MetricOptions) -> None:
    if not options.field:
        raise ValueError("the metric json_field needs the key 'field', such as field: total")


def _own(rule: Callable[..., Mark], check: Check = _accept, **takes: str) -> Metric:
    """A rule of (answer, truth) with some of the options; several truths may be right."""

    def mark(answer: str, truth: str, options: MetricOptions) -> Mark:
        given: dict[str, Any] = {name: getattr(options, key) for name, key in takes.items()}
        return rule(answer, truth, **given)

    return Metric(_best_of(mark), check)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "exact": _own(exact),
        "contains": _own(contains),
        "regex": _own(regex, _check_regex, pattern="pattern"),
        "number": _own(
            number, _check_number, tolerance="tolerance", relative="relative_tolerance"
        ),
        "json_field": _own(json_field, _check_field, field="field"),
        "iou": _own(iou, lambda item, _: [true_box(truth) for truth in item.answers]),
        "anls": Metric(
            lambda answer, item, _: mark_anls(answer, item.answers),
            takes_answers=True,
            is_graded=True,
        ),
        "multiple_choice": Metric(
            lambda answer, item, options: mark_choice(
                answer, item.options, item.answer, options.profile
            ),
            _check_options,
        ),
        "mmmu": Metric(
            lambda answer, item, options: mark_mmmu(
                answer, item.options, item.answer, options.profile
            )
        ),
        "mathvista": Metric(_mathvista, _check_mathvista),
        "ocrbench": Metric(
            lambda answer, item, _: mark_ocrbench(answer, item.answers, item.columns["category"]),
            _check_category,
            aggregate="ocrbench",
            takes_answers=True,
        ),
        "hallusionbench": Metric(
            lambda answer, item, _: mark_yes_or_no(answer, item.answer),
            _check_yes_or_no,
            aggregate="hallusionbench",
        ),
        "chartqa": Metric(
            lambda answer, item, options: mark_chartqa(answer, item.answers, options.profile),
            takes_answers=True,
        ),
        "vqa": Metric(
            lambda answer, item, _: mark_vqa(answer, item.answers),
            takes_answers=True,
            is_graded=True,
        ),
        "vqav2": Metric(
            lambda answer, item, _: mark_vqa(answer, item.answers, original=True),
            takes_answers=True,
            is_graded=True,
        ),
        "videomme": Metric(
            lambda answer, item, _: mark_videomme(answer, item.answer), _check_videomme
        ),
        "grounding": Metric(_grounding, lambda item, _: _box_and_size(item), aggregate="refcoco"),
    }
)
