"""Step 5 of 5: enter a model into the registry, and let `champion` move only through a gate.

What is in the registry is found by digest, so doing it again adds nothing:

    model digest    sha256 over the model folder's own listing of files: one version each
    verdict key     sha256 over the answers of all models and the gate: each is judged once

A verdict that was given is not given again.  Otherwise the next run would undo a rollback
that a person made by hand.  And none is given against a champion that did not answer the same
questions.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ovis_model.config import GateConfig, RegisterConfig
from ovis_model.errors import CheckpointError, GateError, list_examples
from ovis_model.gate import Answers, GateReport, decide, verdict_key
from ovis_model.model_card import Benchmark, Facts, render_card, stated_licence
from ovis_model.model_folder import (
    keep_files,
    listed_digest,
    read_json,
    verify_model_folder,
)
from ovis_model.promotion import change, recover, takeover, was_taken_down
from ovis_model.promotion_log import Change, Move
from ovis_model.registry import (
    ALIASES,
    APPROVAL,
    BASE_DIGEST,
    CHALLENGER,
    CHAMPION,
    DATA_DIGEST,
    EVIDENCE,
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
from ovis_model.reports import Report, sha256_of_file, write_text
from ovis_model.retention import drop_surplus

LINEAGE = "lineage.json"
#: Characters of the objections in a version's tag: MLflow cuts a tag at 8,000 without a word.
MAX_OBJECTIONS_LENGTH = 6000

logger = logging.getLogger(__name__)


class Evaluation(BaseModel):
    """What the card tells of reports/evaluate.json; other fields are not its business."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    protocol: dict[str, Any] = Field(default_factory=dict)
    benchmarks: dict[str, Benchmark]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the report of the evaluate step.

        Raises:
            GateError: If it is missing, or holds no scores that could be told (NaN, say).
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise GateError(f"{path} is missing; run `dvc repro evaluate`") from error
        except ValidationError as error:
            found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
            raise GateError(f"{path} cannot be judged: {list_examples(found)}") from error


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
    predictions: Path,
    training: Path,
    kept_models: Path,
    card: Path,
    judgement: Path,
    registry: Registry,
    validation: Path | None = None,
) -> RegisterReport:
    """Enter the model as a version unless it is there, judge it, and move the aliases.

    A refusal by the gate is a result, not a failure: the version exists, `champion` stays.

    Args:
        config: Name and gate.
        model: Model folder, as the train step wrote it.
        evaluation: Report of the evaluate step, for the model card.
        predictions: What each model answered, as the evaluate step wrote it.
        training: Report of the train step, for the model card.
        kept_models: Folder for the files of versions that have an alias: the next training
            replaces `model`, and the champion has to stay loadable.
        card: Model card to write.
        judgement: Report of the gate to write.
        registry: The versions of `config.model_name`.
        validation: Report of the validate step, for the model card.

    Raises:
        CheckpointError: If the model folder is not what its manifest says.
        GateError: If the answers cannot be judged: they are another model's, or the present
            champion has not answered the same questions.
        ConfigError: If the gate names a benchmark that was not run.
        PromotionError: If the log of promotions is not what was written.
    """
    digest = verify_model_folder(model)
    result = Evaluation.read(evaluation)
    answers = _read_answers(predictions, digest)
    facts = Facts(
        model_name=config.model_name,
        model_digest=digest,
        lineage=_read_lineage(model),
        training=read_json(training),
        validation=read_json(validation) if validation else {},
        base_licence=stated_licence(model),
        protocol=result.protocol,
        benchmarks=result.benchmarks,
    )
    store = kept_models / config.model_name
    with registry.lock():
        entries = recover(registry)
        version = _enter(facts, keep_files(model, store / digest), registry)
        case = _find_case(answers, config.gate, version, registry, store)
        case.report.write(judgement)
        text = render_card(facts, case.report.to_markdown())
        write_text(card, text)
        if case.state == "open":
            asks = config.promotion == "by_approval" or was_taken_down(entries, version)
            registry.describe(version, text)
            _give(case, version, _told(facts, judgement), registry, asks=asks)
        if case.state != "settled":
            _follow(case, version, registry)
        drop_surplus(store, registry, best=config.keep_best)
        return _report(facts, version, registry)


def _read_answers(predictions: Path, digest: str) -> Answers:
    answers = Answers.read(predictions)
    asked = answers.candidate.record.model
    if asked != digest:
        raise GateError(
            f"{predictions} holds answers of another model ({asked[:12]}...) than the one to "
            f"register ({digest[:12]}...); run `dvc repro evaluate`"
        )
    return answers


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


@dataclass(frozen=True)
class _Case:
    """What is to be judged, and how far that has come.

    Attributes:
        answers: With the champion's if there is one to beat.
        gate: The rules.
        key: Digest of both.
        state: Whether its verdict is open, given but not yet followed, or settled.
    """

    answers: Answers
    gate: GateConfig
    key: str
    state: Literal["open", "given", "settled"]

    @cached_property
    def report(self) -> GateReport:
        """The judgement."""
        return decide(self.answers, self.gate)


def _find_case(
    answers: Answers, gate: GateConfig, version: int, registry: Registry, store: Path
) -> _Case:
    """Find the verdict that was given on these answers, or what has to be judged now."""
    tags, champion = registry.tags_of(version), registry.version_at(CHAMPION)
    given_for = champion == version or tags.get(JUDGED_AGAINST) == str(champion or NO_CHAMPION)
    # Of a verdict without a champion to beat, nothing follows once there is another one.
    is_alone = champion in (None, version) or answers.champion_is_candidate
    for some in (answers, answers.without_champion) if is_alone else (answers,):
        key = verdict_key(some, gate)
        if tags.get(VERDICT_KEY) == key:
            return _Case(some, gate, key, "settled")
        # Given by a run that died, and of use unless the champion has gone since.
        if tags.get(VERDICT_KEY) == PENDING + key and given_for:
            return _Case(some, gate, key, "given")
    if champion in (None, version):  # a version does not compete with itself
        answers = answers.without_champion
    else:
        _refuse_another_champion(answers, version, champion, registry, store)
    return _Case(answers, gate, verdict_key(answers, gate), "open")


def _refuse_another_champion(
    answers: Answers, version: int, champion: int, registry: Registry, store: Path
) -> None:
    """Refuse to judge against answers that are not the present champion's."""
    digest = registry.tags_of(champion).get(MODEL_DIGEST)
    asked = None if answers.champion is None else answers.champion.record.model
    if digest is not None and asked == digest:
        return
    problem = f"version {champion} is the {CHAMPION}, but has not answered the same questions"
    if digest is None or not ((store / digest).is_dir() or registry.check_upload(champion)):
        raise GateError(
            f"{problem}, and its files are not in {store / (digest or 'unknown')}. Check out the "
            "commit it was trained from, then `dvc checkout models/finetuned` and `make "
            "register`; come back and evaluate. Or promote against the gate: `ovis promote "
            f"{version} --force --reason TEXT`"
        )
    other = None if asked is None else registry.find_version(MODEL_DIGEST, asked)
    whose = "nobody" if asked is None else f"version {other}" if other else f"model {asked[:12]}"
    raise GateError(
        f"{problem}: when they were asked, {whose} was to be beaten. Run `dvc repro --force "
        "--single-item evaluate`, which asks only those who were not asked yet, then `make "
        "register`"
    )


def _follow(case: _Case, version: int, registry: Registry) -> None:
    """Move the aliases as the verdict says, and take the mark off it.

    The verdict comes first, marked as pending; then the aliases move; then the mark is taken
    off.  A run that dies on the way goes on with the verdict that was given, unless the champion
    that it was given against has gone.
    """
    tags = registry.tags_of(version)
    passed, waits = tags[VERDICT] == PASSED, tags.get(APPROVAL) == WAITING
    moves = [Move.of(CHALLENGER, registry.version_at(CHALLENGER), version)]
    if passed and not waits:
        moves += takeover(registry, version)
    reason = f"the gate {'let it pass' if passed else 'refused it'}"
    reason += ", and it waits for approval" if waits else ""
    change(registry, Change("register", moves, verdict=case.key, reason=reason))
    registry.set_tags(version, {VERDICT_KEY: case.key})


def _told(facts: Facts, judgement: Path) -> dict[str, str]:
    scores = {name: one.model_dump(mode="json") for name, one in facts.benchmarks.items()}
    return {
        SCORES: json.dumps(scores, sort_keys=True),
        EVIDENCE: sha256_of_file(judgement),
    }


def _give(
    case: _Case, version: int, told: Mapping[str, str], registry: Registry, *, asks: bool
) -> None:
    """Write the verdict down, marked as pending.

    Args:
        case: What is judged.
        version: Whose verdict it is.
        told: Tags beside the verdict's own: scores, and where the evidence is.
        registry: Where.
        asks: Whether a person has the last word, should the version pass.
    """
    before, champion = registry.tags_of(version), registry.version_at(CHAMPION)
    if VERDICT_KEY in before:  # no mixture of two verdicts, if this run dies in the middle
        registry.set_tags(version, {VERDICT_KEY: PENDING})
    waits = asks and case.report.passed and champion != version
    tags = {
        **({APPROVAL: WAITING if waits else NOT_ASKED} if waits or APPROVAL in before else {}),
        **told,
        VERDICT: PASSED if case.report.passed else REFUSED,
        OBJECTIONS: json.dumps(_shorten(case.report.objections)),
        JUDGED_AGAINST: str(champion or NO_CHAMPION),
        VERDICT_KEY: PENDING + case.key,
    }
    registry.set_tags(version, tags)


def _shorten(objections: Sequence[str]) -> list[str]:
    """Keep what fits into a tag; all of them are in the report of the gate."""
    kept: list[str] = []
    for number, objection in enumerate(objections):
        if len(json.dumps([*kept, objection])) > MAX_OBJECTIONS_LENGTH:
            return [*kept, f"and {len(objections) - number} more; see reports/gate.json"]
        kept.append(objection)
    return kept


def _report(facts: Facts, version: int, registry: Registry) -> RegisterReport:
    holders = {alias: registry.version_at(alias) for alias in ALIASES}
    tags, promoted = registry.tags_of(version), holders[CHAMPION] == version
    objections = json.loads(tags[OBJECTIONS])
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
        waits_for_approval=not promoted and tags.get(APPROVAL) == WAITING,
        objections=objections,
        aliases=[alias for alias, holder in holders.items() if holder == version],
        champion=holders[CHAMPION],
    )
