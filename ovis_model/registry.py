"""What a registry of models is to this project: versions with tags, three aliases, a log.

    challenger   the newest version that was judged
    champion     the version in use
    previous     the champion before, to which `ovis rollback` returns

The aliases move through `ovis_model.promotion` only.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ovis_model.promotion_log import PromotionLog

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
ALIASES = (CHALLENGER, CHAMPION, PREVIOUS)

#: Tags of a version.
MODEL_DIGEST = "ovis.model_digest"
DATA_DIGEST = "ovis.data_digest"
INPUTS_DIGEST = "ovis.inputs_digest"
#: Digest of the base model, if it was written by a training of this project: its parent.
BASE_DIGEST = "ovis.base_digest"
#: How many samples it learned from; their list is kept on the version's run.
NUM_SAMPLES = "ovis.num_samples"
#: sha256 of the profile of the data it learned from, which is kept likewise.
DRIFT_PROFILE = "ovis.drift_profile"
SCORES = "ovis.scores"
VERDICT = "ovis.gate"
OBJECTIONS = "ovis.gate_objections"
#: The sha256 of the gate's whole report, which is kept with the version's run.
EVIDENCE = "ovis.gate_evidence"
#: The champion that the gate compared a version with; `NO_CHAMPION` if there was none.
JUDGED_AGAINST = "ovis.judged_against"
#: Digest of all models' answers and the gate: what was judged, and by which rules.  It begins with
#: `PENDING` until the aliases have followed.
VERDICT_KEY = "ovis.verdict_key"
PENDING = "pending:"
#: Why a version became champion although the gate did not let it pass.
FORCED = "ovis.forced"

#: Where a person has the last word: whether they were asked and what they said.
APPROVAL = "ovis.approval"

PASSED, REFUSED = "passed", "refused"
WAITING, APPROVED, REJECTED, NOT_ASKED = "waiting", "approved", "rejected", "not asked"
#: Versions count from 1.
NO_CHAMPION = 0


class Registry(Protocol):
    """The versions of one model name; `tasks/_registry.py` has the real one."""

    @property
    def promotions(self) -> PromotionLog:
        """The record of every move of an alias."""
        ...

    def lock(self) -> AbstractContextManager[None]:
        """Keep other writers out, so that find-then-add adds once and compare-then-move holds."""
        ...

    def find_version(self, tag: str, value: str) -> int | None:
        """Return the oldest version with this tag, or None."""
        ...

    def add_version(self, model: Path, tags: Mapping[str, str]) -> int:
        """Enter a model folder in one step with its tags."""
        ...

    def check_upload(self, version: int) -> bool:
        """Say whether the store holds this version's files; if it does, look through them.

        Raises:
            PromotionError: If they are not what was uploaded.
        """
        ...

    def versions_with(self, tag: str) -> list[int]:
        """Return the versions that have this tag, oldest first."""
        ...

    def tags_of(self, version: int) -> dict[str, str]:
        """Return a version's tags.

        Raises:
            PromotionError: If there is no such version.
        """
        ...

    def set_tags(self, version: int, tags: Mapping[str, str]) -> None:
        """Replace these tags of a version, in their order."""
        ...

    def describe(self, version: int, text: str) -> None:
        """Replace a version's description."""
        ...

    def version_at(self, alias: str) -> int | None:
        """Return the version an alias points at, or None."""
        ...

    def move_alias(self, alias: str, version: int | None) -> None:
        """Point an alias at a version; None removes it."""
        ...

    def fetch_log(self) -> str | None:
        """Make `promotions` as long as what was published, and return its newest line's sha256.

        Returns:
            None if nothing was published yet.

        Raises:
            PromotionError: If the two are not one log.
        """
        ...

    def publish_log(self, head: str) -> None:
        """Publish `promotions`, whose newest line has this sha256, which an edit cannot reach."""
        ...
