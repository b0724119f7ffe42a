"""The judgement of one answer."""

from dataclasses import dataclass
from typing import Literal

#: scored       the rule judged the answer
#: unresolved   the rule could not tell and there is no judge: counts 0, and bounds the score
#: invalid      there was nothing to judge: counts 0
Status = Literal["scored", "unresolved", "invalid"]


@dataclass(frozen=True)
class Mark:
    """The judgement of one answer.

    Attributes:
        correct: Whether it counts.
        value: What the metric measured, 0 to 1.
        invalid: Whether there was nothing to judge: no answer, or no box in it.
        needs_judge: Whether an official run would have asked a judge model about this answer.
        extracted: What the rule took from the answer, such as the letter of an option; "Z" is
            the official word for no option.
        strict: Of a box: whether it hits and is written as Ovis2.5 is taught; else None.
        conforms: Of a box: whether it is written as Ovis2.5 is taught; else None.
    """

    correct: bool
    value: float
    invalid: bool = False
    needs_judge: bool = False
    extracted: str = ""
    strict: bool | None = None
    conforms: bool | None = None

    @property
    def status(self) -> Status:
        """What became of the answer.

        An answer that the rule found right stays right, even where an official run would have
        asked a judge as well.

        Example:
            >>> Mark(correct=False, value=0.0, needs_judge=True).status
            'unresolved'
        """
        if self.correct:
            return "scored"
        if self.needs_judge:
            return "unresolved"
        return "invalid" if self.invalid else "scored"
