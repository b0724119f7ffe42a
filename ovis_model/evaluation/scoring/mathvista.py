"""MathVista without its judge: numbers must be equal, options are inferred.

An official run asks a judge to extract the answer of every row that this rule does not find
right.  What stays unresolved here is therefore a large part, and the score a lower bound.

Source: VLMEvalKit @ e8e78f05, `post_check` in `dataset/utils/mathvista.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.multiple_choice import infer_option
from ovis_model.evaluation.scoring.profiles import DEFAULT_PROFILE, Profile

MULTIPLE_CHOICE = "multi_choice"
_NUMBERS: Mapping[str, Callable[[str], float]] = {"integer": int, "float": float}


@dataclass(frozen=True)
class MathQuestion:
    """What decides how an answer is compared.

    Attributes:
        question_type: "multi_choice" or "free_form".
        answer_type: "integer", "float", "text" or "list".
        answer: The true answer.
        answer_option: The letter of the right option, for a choice.
        options: Texts by letter, for a choice.
    """

    question_type: str
    answer_type: str
    answer: str
    answer_option: str
    options: Mapping[str, str]


def mark_mathvista(
    answer: str, question: MathQuestion, profile: Profile = DEFAULT_PROFILE
) -> Mark:
    """Mark an answer.

    Args:
        answer: What is left of the output after its thought and the words "final answer".
        question: The question.
        profile: The revision to follow.
    """
    # The original looks twice, the second time at what the first look found.
    found = _look(answer, question, profile)
    result = str(found) if found else answer.strip()
    correct = _is_right(result, question, profile)
    return Mark(
        correct,
        float(correct),
        invalid=not answer.strip(),
        needs_judge=not found,
        extracted=result if correct else "",
    )


def _look(answer: str, question: MathQuestion, profile: Profile) -> str | float | None:
    """Return what the first look finds: any option, or a number only if it is right."""
    if question.question_type == MULTIPLE_CHOICE:
        return infer_option(answer, question.options, profile)
    if question.answer_type not in _NUMBERS:
        return "None" if question.answer == "None" else None
    number = _number(answer, question)
    return number if number is not None and number == _number(question.answer, question) else None


def _is_right(result: str, question: MathQuestion, profile: Profile) -> bool:
    if question.question_type == MULTIPLE_CHOICE:
        return infer_option(result, question.options, profile) == question.answer_option
    if question.answer_type not in _NUMBERS:
        # The original compares the word "None", whatever was answered: text is never right.
        return question.answer == "None"
    number = _number(result, question)
    return number is not None and number == _number(question.answer, question)


def _number(text: str, question: MathQuestion) -> float | None:
    try:
        return _NUMBERS[question.answer_type](text)
    except ValueError:
        return None
