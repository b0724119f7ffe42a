import json

import pytest

from ovis_model.config import GateConfig, RegisterConfig
from ovis_model.errors import CheckpointError, GateError
from ovis_model.model_card import Benchmark
from ovis_model.registration import RegisterReport, decide, register
from ovis_model.registry import SCORES, VERDICT, VERDICT_KEY
from tests.support.registry import (
    MemoryRegistry,
    scores,
    write_evaluation,
    write_manifest,
    write_model,
)


def marks(**benchmarks):
    return {name: Benchmark.model_validate(one) for name, one in benchmarks.items()}


@pytest.fixture
def registry(tmp_path):
    return MemoryRegistry(tmp_path / "promotions.jsonl")


@pytest.fixture
def run(tmp_path, registry):
    """Register what a training and an evaluation left, as the step does."""

    def run(weights=b"one", gate=None, **benchmarks):
        (tmp_path / "train.json").write_text(json.dumps({"samples": 1200}), encoding="utf-8")
        return register(
            RegisterConfig(gate=gate or GateConfig()),
            model=write_model(tmp_path / "model", weights),
            evaluation=write_evaluation(tmp_path / "evaluate.json", **benchmarks),
            training=tmp_path / "train.json",
            kept_models=tmp_path / "kept",
            card=tmp_path / "card.md",
            registry=registry,
        )

    return run


@pytest.mark.parametrize(("score", "promoted"), [(90.0, True), (89.9, False)])
def test_a_score_on_the_floor_is_enough(score, promoted):
    verdict = decide(marks(ocr=scores(score)), None, GateConfig(min_score={"ocr": 90.0}))
    assert verdict.promote is promoted


def test_a_floor_for_a_benchmark_that_was_not_evaluated_is_an_objection():
    verdict = decide(marks(ocr=scores(99)), None, GateConfig(min_score={"video": 50.0}))
    assert verdict.objections == ("video: not evaluated, but the gate has a floor of 50.0",)


@pytest.mark.parametrize(("drop", "promoted"), [(0.0, True), (1.0, True), (1.1, False)])
def test_a_regression_up_to_the_limit_is_allowed(drop, promoted):
    challenger, champion = marks(ocr=scores(70.0 - drop)), marks(ocr=scores(70.0))
    assert decide(challenger, champion, GateConfig(max_regression=1.0)).promote is promoted


@pytest.mark.parametrize(("tuned", "promoted"), [(10.0, True), (9.9, False)])
def test_a_model_under_its_own_base_is_refused(tuned, promoted):
    verdict = decide(marks(ocr=scores(tuned, base=10.0)), None, GateConfig())
    assert verdict.promote is promoted


def test_a_changed_benchmark_is_not_compared():
    challenger = marks(ocr=scores(99, exam="b" * 64))
    verdict = decide(challenger, marks(ocr=scores(50, exam="a" * 64)), GateConfig())
    (objection,) = verdict.objections
    assert objection.startswith("ocr: the champion's mark is from another exam")
    assert "aaaaaaaaaaaa" in objection
    assert "bbbbbbbbbbbb" in objection


def test_a_benchmark_that_the_champion_took_must_be_taken_again():
    verdict = decide(marks(ocr=scores(99)), marks(ocr=scores(9), qa=scores(9)), GateConfig())
    assert verdict.objections == ("qa: the champion has a score, the challenger has none",)


def test_no_benchmark_at_all_is_an_objection():
    assert decide({}, None, GateConfig()).objections == ("no benchmark was evaluated",)


@pytest.mark.parametrize(("count", "promoted"), [(20, True), (21, False)])
@pytest.mark.parametrize(
    ("counter", "limit"),
    [
        ("forced_close", GateConfig(max_forced_close_fraction=0.2)),
        ("invalid", GateConfig(max_invalid_fraction=0.2)),
    ],
)
def test_too_many_forced_or_invalid_answers_are_refused(counter, limit, count, promoted):
    verdict = decide(marks(ocr=scores(95, **{counter: count})), None, limit)
    assert verdict.promote is promoted
    assert promoted or "21 of 100" in verdict.objections[0]


def test_the_first_model_that_passes_becomes_champion(run, registry, tmp_path):
    report = run(ocr=scores(95))
    assert report.promoted
    assert registry.aliases == {"challenger": 1, "champion": 1}
    assert report.aliases == ["challenger", "champion"]
    assert registry.texts[1] == (tmp_path / "card.md").read_text(encoding="utf-8")


def test_registering_the_same_model_again_changes_nothing(run, registry, caplog):
    caplog.set_level("INFO")
    first = run(ocr=scores(95))
    before = (dict(registry.versions), dict(registry.aliases))
    assert run(ocr=scores(95)) == first
    assert (registry.versions, registry.aliases) == before
    assert "version 1 already holds this model; nothing added" in caplog.text


def test_a_better_model_takes_over_and_the_old_champion_becomes_previous(run, registry):
    run(b"one", ocr=scores(90))
    report = run(b"two", ocr=scores(95))
    assert (report.version, report.champion) == (2, 2)
    assert registry.aliases == {"challenger": 2, "champion": 2, "previous": 1}


def test_a_refused_model_is_a_version_but_not_the_champion(run, registry):
    run(b"one", ocr=scores(95))
    report = run(b"two", ocr=scores(80))
    assert not report.promoted
    assert report.objections == ["ocr: 15.0 points under the champion's 95.0 (allowed: 1.0)"]
    assert registry.aliases == {"challenger": 2, "champion": 1}
    assert registry.versions[2][VERDICT] == "refused"


def test_another_gate_judges_the_same_version_again(run, registry):
    refused = run(gate=GateConfig(min_score={"ocr": 99.0}), ocr=scores(95))
    promoted = run(gate=GateConfig(min_score={"ocr": 90.0}), ocr=scores(95))
    assert (refused.version, refused.promoted) == (1, False)
    assert (promoted.version, promoted.promoted) == (1, True)


def test_another_evaluation_replaces_the_scores_of_the_version(run, registry):
    run(ocr=scores(95))
    run(ocr=scores(96, exam="new exam"))
    assert json.loads(registry.versions[1][SCORES])["ocr"]["fingerprint"] == "new exam"
    assert list(registry.versions) == [1]


def test_a_rollback_by_hand_is_not_undone_by_the_next_run(run, registry):
    run(b"one", ocr=scores(90))
    run(b"two", ocr=scores(95))
    registry.move_alias("champion", 1)
    report = run(b"two", ocr=scores(95))
    assert registry.aliases["champion"] == 1
    assert not report.promoted


def test_a_run_that_died_before_the_verdict_key_is_made_good(run, registry):
    run(b"one", ocr=scores(90))
    whole = run(b"two", ocr=scores(95))
    # As if killed after `previous` had moved, before `champion` did.
    registry.aliases = {"challenger": 2, "champion": 1, "previous": 1}
    del registry.versions[2][VERDICT_KEY]
    assert run(b"two", ocr=scores(95)) == whole
    assert registry.aliases == {"challenger": 2, "champion": 2, "previous": 1}


def test_the_champion_keeps_its_files_when_the_next_training_replaces_the_folder(
    run, registry, tmp_path
):
    run(b"one", ocr=scores(95))
    run(b"two", ocr=scores(50))
    assert (registry.places[1] / "model.safetensors").read_bytes() == b"one"


def test_kept_files_share_their_bytes_with_the_model_folder(run, registry, tmp_path):
    run(ocr=scores(95))
    model = tmp_path / "model" / "model.safetensors"
    assert model.samefile(registry.places[1] / "model.safetensors")


def test_files_of_a_version_without_an_alias_are_dropped(run, registry, tmp_path):
    for number in range(4):
        run(b"%d" % number, ocr=scores(90 + number))
    kept = {version for version, place in registry.places.items() if place.exists()}
    assert kept == {3, 4}  # previous and champion


def test_a_champion_without_scores_cannot_be_beaten_by_guesswork(run, registry):
    registry.versions[1] = {}
    registry.move_alias("champion", 1)
    with pytest.raises(GateError, match="version 1 is the champion but carries no scores"):
        run(ocr=scores(95))


def test_nan_scores_are_not_judged(run, registry):
    with pytest.raises(GateError, match=r"cannot be judged: benchmarks\.ocr\.tuned\.score"):
        run(ocr=scores(float("nan")))
    assert registry.versions == {}


def test_a_missing_evaluation_names_the_command(tmp_path, registry):
    with pytest.raises(GateError, match="run `dvc repro evaluate`"):
        register(
            RegisterConfig(),
            model=write_model(tmp_path / "model"),
            evaluation=tmp_path / "absent.json",
            training=tmp_path / "train.json",
            kept_models=tmp_path / "kept",
            card=tmp_path / "card.md",
            registry=registry,
        )


def test_a_model_without_a_manifest_is_not_registered(tmp_path, run, registry):
    run(ocr=scores(95))
    (tmp_path / "model" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="run `dvc repro train`"):
        register(
            RegisterConfig(),
            model=tmp_path / "model",
            evaluation=tmp_path / "evaluate.json",
            training=tmp_path / "train.json",
            kept_models=tmp_path / "kept",
            card=tmp_path / "card.md",
            registry=registry,
        )


def test_a_model_that_does_not_say_what_it_was_trained_from_is_not_registered(tmp_path, registry):
    model = write_model(tmp_path / "model")
    (model / "lineage.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="does not name what the model was trained from"):
        register(
            RegisterConfig(),
            model=write_manifest(model),
            evaluation=write_evaluation(tmp_path / "evaluate.json", ocr=scores(95)),
            training=tmp_path / "train.json",
            kept_models=tmp_path / "kept",
            card=tmp_path / "card.md",
            registry=registry,
        )


def test_the_report_survives_its_file(run, tmp_path):
    report = run(ocr=scores(95))
    report.write(tmp_path / "register.json")
    assert RegisterReport.read(tmp_path / "register.json") == report
