"""Which revision of VLMEvalKit the rules follow: they changed in two places.

vlmevalkit-2025-08   c3371551, the state when Ovis2.5 was released
vlmevalkit-2025-10   6f67cef5, which adds the class that ran Ovis2.5
vlmevalkit-2026-08   e8e78f05
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

ProfileName = Literal["vlmevalkit-2025-08", "vlmevalkit-2025-10", "vlmevalkit-2026-08"]


@dataclass(frozen=True)
class Profile:
    """One revision of the official rules.

    Attributes:
        reads_answer_phrase: Multiple choice: "answer is B" settles an answer with several
            letters (since 2026-06-17).
        divides_by_prediction: ChartQA: the 5 % are of the prediction, not of the true value
            (before 2025-09-01).
    """

    name: ProfileName
    reads_answer_phrase: bool
    divides_by_prediction: bool


PROFILES: Mapping[ProfileName, Profile] = MappingProxyType(
    {
        name: Profile(
            name,
            reads_answer_phrase=name == "vlmevalkit-2026-08",
            divides_by_prediction=name == "vlmevalkit-2025-08",
        )
        for name in get_args(ProfileName)
    }
)
DEFAULT_PROFILE = PROFILES["vlmevalkit-2026-08"]
