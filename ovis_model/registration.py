"""Step 5 of 5: enter a model into the registry, and let `champion` move only through a gate.

What is in the registry is found by digest, so doing it again adds nothing:

    model digest    sha256 over the model folder's own listing of files: one version each
    verdict key     sha256 over model, evaluation and gate: each combination is judged once

A verdict that was given is not given again.  Otherwise the next run would undo a rollback
that a person made by hand.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ovis_model.config import GateConfig, RegisterConfig
from ovis_model.errors import CheckpointError, GateError, list_examples
from ovis_model.model_card import Benchmark, Facts, render_card
from ovis_model.model_folder import (
    digest_of,
    keep_files,
    listed_digest,
    read_json,
    verify_model_folder,
)
from ovis_model.promotion import change, recover, takeover
from ovis_model.promotion_log import Change, Move
from ovis_model.registry import (
    ALIASES,
    APPROVAL,
    BASE_DIGEST,
    CHALLENGER,
    CHAMPION,
    DATA_DIGEST,
    INPUTS_DIGEST,
    JUDGED_AGAINST,
    MODEL_DIGEST,
    NO_CHAMPION,
    NOT_ASKED,
    OBJECTIONS,
    PASSED,
    PENDING,
    REFUSED,
    SCORES,
    VERDICT,
    VERDICT_KEY,
    WAITING,
    Registry,
)
from ovis_model.reports import Report, write_text
from ovis_model.retention import drop_surplus

LINEAGE = "lineage.json"

logger = logging.getLogger(__name__)


class Evaluation(BaseModel):
    """What the gate needs of reports/evaluate.json; other fields are not its business."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    protocol: dict[str, Any] = Field(default_factory=dict)
    benchmarks: dict[str, Benchmark]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the report of the evaluate step.

        Raises:
            GateError: If it is missing, or holds no scores a gate could use (NaN, say).
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise GateError(f"{path} is missing; run `dvc repro evaluate`") from error
        except ValidationError as error:
            found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
            raise GateError(f"{path} cannot be judged: {list_examples(found)}") from error


@dataclass(frozen=True)
class Verdict:
    """What speaks against promoting a model; nothing means it is promoted."""

    objections: tuple[str, ...]

    @property
    def promote(self) -> bool:
        """Whether the gate lets the model pass."""
        return not self.objections


def decide(
    challenger: Mapping[str, Benchmark],
    champion: Mapping[str, Benchmark] | None,
    gate: GateConfig,
) -> Verdict:
    """Judge a challenger against fixed floors, its own base, and the champion if there is one.

    Args:
        challenger: Its benchmarks by name.
        champion: The champion's, as they were when it was judged.
        gate: The limits.
    """
    objections = [] if challenger else ["no benchmark was evaluated"]
    for name, floor in gate.min_score.items():
        if name not in challenger:
            objections.append(f"{name}: not evaluated, but the gate has a floor of {floor:.1f}")
        elif challenger[name].tuned.score < floor:
            objections.append(f"{name}: {challenger[name].tuned.score:.1f} is under {floor:.1f}")
    for name, result in challenger.items():
        objections += _judge_alone(name, result, gate)
    for name, best in (champion or {}).items():
        objections += _compare(name, challenger.get(name), best, gate)
    return Verdict(tuple(objections))


def _judge_alone(name: str, result: Benchmark, gate: GateConfig) -> list[str]:
    """Compare one benchmark with the base model and with the limits on how it was answered."""
    objections = []
    if result.tuned.score < result.base.score:
        objections.append(
            f"{name}: {result.tuned.score:.1f} is under the base model's {result.base.score:.1f}"
        )
    for what, count, limit in (
        ("thoughts closed by force", result.tuned.forced_close, gate.max_forced_close_fraction),
        ("invalid answers", result.tuned.invalid, gate.max_invalid_fraction),
    ):
        if count > limit * result.num_items:
            objections.append(
                f"{name}: {count} of {result.num_items} {what} (allowed: {limit:.0%})"
            )
    return objections


def _compare(name: str, result: Benchmark | None, best: Benchmark, gate: GateConfig) -> list[str]:
    """Compare one benchmark with the champion's result on it."""
    if result is None:
        return [f"{name}: the champion has a score, the challenger has none"]
    if result.fingerprint != best.fingerprint:
        # A mark from another exam is worse than no mark.
        objection = (
            f"{name}: the champion's mark is from another exam (its fingerprint is "
            f"{best.fingerprint[:12]}, this one's {result.fingerprint[:12]}); evaluate the "
            "champion on this one first"
        )
        return [objection]
    lost = best.tuned.score - result.tuned.score
    if lost <= gate.max_regression:
        return []
    objection = (
        f"{name}: {lost:.1f} points under the champion's {best.tuned.score:.1f} "
        f"(allowed: {gate.max_regression:.1f})"
    )
    return [objection]


class RegisterReport(Report):
    """The registry after the step, told from this model's side.

    Whether this very run added the version is not in here: a second run, which adds nothing,
    has to write the same file.
    """

    model_name: str
    version: int
    model_digest: str
    promoted: bool
    waits_for_approval: bool = False
    objections: list[str]
    aliases: list[str]
    champion: int | None


def register(  # noqa: PLR0913 - a step's paths are its interface
    config: RegisterConfig,
    *,
    model: Path,
    evaluation: Path,
    training: Path,
    kept_models: Path,
    card: Path,
    registry: Registry,
) -> RegisterReport:
    """Enter the model as a version unless it is there, judge it, and move the aliases.

    A refusal by the gate is a result, not a failure: the version exists, `champion` stays.

    Args:
        config: Name and gate.
        model: Model folder, as the train step wrote it.
        evaluation: Report of the evaluate step.
        training: Report of the train step, for the model card.
        kept_models: Folder for the files of versions that have an alias: the next training
            replaces `model`, and the champion has to stay loadable.
        card: Model card to write.
        registry: The versions of `config.model_name`.

    Raises:
        CheckpointError: If the model folder is not what its manifest says.
        GateError: If the evaluation cannot be judged.
        PromotionError: If the log of promotions is not what was written.
    """
    digest = verify_model_folder(model)
    result = Evaluation.read(evaluation)
    facts = Facts(
        model_name=config.model_name,
        model_digest=digest,
        lineage=_read_lineage(model),
        training=read_json(training),
        protocol=result.protocol,
        benchmarks=result.benchmarks,
    )
    store = kept_models / config.model_name
    with registry.lock():
        recover(registry)
        version = _enter(facts, keep_files(model, store / digest), registry)
        objections = _settle(config, version, facts, registry)
        write_text(card, render_card(facts, objections))
        drop_surplus(store, registry, best=config.keep_best)
        return _report(facts, version, objections, registry)


def _read_lineage(model: Path) -> dict[str, Any]:
    lineage = read_json(model / LINEAGE)
    if not lineage.get("inputs_digest"):
        raise CheckpointError(
            f"{model / LINEAGE} does not name what the model was trained from; "
            "run `dvc repro train`"
        )
    return lineage


def _enter(facts: Facts, kept: Path, registry: Registry) -> int:
    """Return the version that holds this model, adding it if there is none."""
    version = registry.find_version(MODEL_DIGEST, facts.model_digest)
    if version is not None:
        logger.info(
            "%s version %d already holds this model; nothing added", facts.model_name, version
        )
        return version
    tags = {
        MODEL_DIGEST: facts.model_digest,
        INPUTS_DIGEST: str(facts.lineage["inputs_digest"]),
    }
    if "data_digest" in facts.lineage:
        tags[DATA_DIGEST] = str(facts.lineage["data_digest"])
    base = listed_digest(Path(facts.lineage.get("base_model", "")))
    if base is not None:
        tags[BASE_DIGEST] = base
    version = registry.add_version(kept, tags)
    logger.info("registered %s version %d", facts.model_name, version)
    return version


def _settle(config: RegisterConfig, version: int, facts: Facts, registry: Registry) -> list[str]:
    """Judge the version and move the aliases, unless this verdict was given before.

    The verdict comes first, marked as pending; then the aliases move; then the mark is taken
    off.  A run that dies on the way goes on with the verdict that was given, unless the champion
    that it was given against has gone.

    Returns:
        The objections; none means that the gate let it pass.
    """
    scores = {name: one.model_dump(mode="json") for name, one in facts.benchmarks.items()}
    gate = config.gate
    key = digest_of([facts.model_digest, facts.protocol, scores, gate.model_dump()])
    tags = registry.tags_of(version)
    if tags.get(VERDICT_KEY) == key:
        return list(json.loads(tags[OBJECTIONS]))
    champion = registry.version_at(CHAMPION)
    against = str(champion or NO_CHAMPION)
    is_same_contest = champion == version or tags.get(JUDGED_AGAINST) == against
    if tags.get(VERDICT_KEY) != PENDING + key or not is_same_contest:
        if VERDICT_KEY in tags:  # no mixture of two verdicts, if this run dies in the middle
            registry.set_tags(version, {VERDICT_KEY: PENDING})
        verdict = decide(facts.benchmarks, _scores_to_beat(registry, version, champion), gate)
        registry.describe(version, render_card(facts, verdict.objections))
        asks = verdict.promote and config.promotion == "by_approval" and champion != version
        tags = {
            **({APPROVAL: WAITING if asks else NOT_ASKED} if asks or APPROVAL in tags else {}),
            SCORES: json.dumps(scores, sort_keys=True),
            VERDICT: PASSED if verdict.promote else REFUSED,
            OBJECTIONS: json.dumps(verdict.objections),
            JUDGED_AGAINST: against,
            VERDICT_KEY: PENDING + key,
        }
        registry.set_tags(version, tags)
    passed = tags[VERDICT] == PASSED
    moves = [Move.of(CHALLENGER, registry.version_at(CHALLENGER), version)]
    waits = tags.get(APPROVAL) == WAITING
    if passed and not waits:
        moves += takeover(registry, version)
    reason = f"the gate {'let it pass' if passed else 'refused it'}"
    reason += ", and it waits for approval" if waits else ""
    change(registry, Change("register", moves, verdict=key, reason=reason))
    registry.set_tags(version, {VERDICT_KEY: key})
    return list(json.loads(tags[OBJECTIONS]))


def _scores_to_beat(
    registry: Registry, version: int, champion: int | None
) -> dict[str, Benchmark] | None:
    """Read the champion's scores; a version does not compete with itself."""
    if champion is None or champion == version:
        return None
    scores = registry.tags_of(champion).get(SCORES)
    if scores is None:
        raise GateError(
            f"version {champion} is the {CHAMPION} but carries no scores (tag {SCORES}), so "
            f"nothing can be compared with it. Move the alias to a version that this pipeline "
            "registered, or remove it."
        )
    return {name: Benchmark.model_validate(one) for name, one in json.loads(scores).items()}


def _report(
    facts: Facts, version: int, objections: list[str], registry: Registry
) -> RegisterReport:
    holders = {alias: registry.version_at(alias) for alias in ALIASES}
    promoted = holders[CHAMPION] == version
    logger.info(
        "gate: %s; champion is version %s",
        "passed" if not objections else "refused, " + "; ".join(objections),
        holders[CHAMPION],
    )
    return RegisterReport(
        model_name=facts.model_name,
        version=version,
        model_digest=facts.model_digest,
        promoted=promoted,
        waits_for_approval=not promoted and registry.tags_of(version).get(APPROVAL) == WAITING,
        objections=objections,
        aliases=[alias for alias, holder in holders.items() if holder == version],
        champion=holders[CHAMPION],
    )
