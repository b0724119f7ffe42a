import json

import pytest

from ovis_model.config import GateConfig, RegisterConfig
from ovis_model.errors import CheckpointError, ConfigError, GateError
from ovis_model.gate import GateReport
from ovis_model.promotion import approve, rollback
from ovis_model.registration import MAX_OBJECTIONS_LENGTH, RegisterReport
from ovis_model.registry import (
    EVIDENCE,
    JUDGED_AGAINST,
    MODEL_DIGEST,
    OBJECTIONS,
    VERDICT,
    VERDICT_KEY,
)
from ovis_model.reports import sha256_of_file
from tests.support.registry import (
    MemoryRegistry,
    Steps,
    write_evaluation,
    write_manifest,
    write_model,
)

#: What 200 answers are enough for.
GATE = GateConfig(margin=5.0)


@pytest.fixture
def registry(tmp_path):
    return MemoryRegistry(tmp_path / "promotions.jsonl")


@pytest.fixture
def steps(tmp_path, registry):
    return Steps(tmp_path, registry)


@pytest.fixture
def evaluate(steps):
    return steps.evaluate


@pytest.fixture
def step(steps):
    return lambda gate=GATE: steps.register(RegisterConfig(gate=gate))


@pytest.fixture
def run(evaluate, step):
    """Do both."""

    def run(weights=b"one", gate=GATE, exam="exam", **percent):
        evaluate(weights, exam, **percent)
        return step(gate)

    return run


def test_the_first_model_that_passes_becomes_champion(run, registry, tmp_path):
    report = run(ocr=95)
    assert report.promoted
    assert registry.aliases == {"challenger": 1, "champion": 1}
    assert report.aliases == ["challenger", "champion"]
    assert registry.texts[1] == (tmp_path / "card.md").read_text(encoding="utf-8")


def test_registering_the_same_model_again_changes_nothing(run, registry, caplog):
    caplog.set_level("INFO")
    first = run(ocr=95)
    before = (dict(registry.versions), dict(registry.aliases))
    assert run(ocr=95) == first
    assert (registry.versions, registry.aliases) == before
    assert "version 1 already holds this model; nothing added" in caplog.text


def test_a_better_model_takes_over_and_the_old_champion_becomes_previous(run, registry):
    run(b"one", ocr=90)
    report = run(b"two", ocr=95)
    assert (report.version, report.champion) == (2, 2)
    assert registry.aliases == {"challenger": 2, "champion": 2, "previous": 1}


def test_a_refused_model_is_a_version_but_not_the_champion(run, registry):
    run(b"one", ocr=95)
    report = run(b"two", ocr=80)
    assert not report.promoted
    assert report.objections == [
        "against the champion, ocr lost more than 5 points, at -15.0 points (-20.6 to -10.7)"
    ]
    assert registry.aliases == {"challenger": 2, "champion": 1}
    assert registry.versions[2][VERDICT] == "refused"


def test_another_gate_judges_the_same_version_again(run, registry):
    refused = run(gate=GateConfig(min_score={"ocr": 99.0}), ocr=95)
    promoted = run(gate=GateConfig(min_score={"ocr": 90.0}), ocr=95)
    assert (refused.version, refused.promoted) == (1, False)
    assert (promoted.version, promoted.promoted) == (1, True)


def test_another_evaluation_judges_the_same_version_again(run, registry):
    run(ocr=95)
    first = dict(registry.versions[1])
    run(ocr=95, exam="another")
    assert list(registry.versions) == [1]
    assert registry.versions[1][VERDICT_KEY] != first[VERDICT_KEY]


def test_the_whole_judgement_is_kept_and_its_digest_is_on_the_version(run, registry, tmp_path):
    run(b"one", ocr=90)
    run(b"two", ocr=95)
    report = GateReport.read(tmp_path / "gate.json")
    assert registry.versions[2][EVIDENCE] == sha256_of_file(tmp_path / "gate.json")
    assert registry.versions[2][JUDGED_AGAINST] == "1"
    assert report.champion.champion == registry.versions[1][MODEL_DIGEST]
    assert set(report.answers) == {"tuned", "base", "champion"}
    assert report.champion.benchmarks["ocr"].evidence.difference == 5.0
    assert "| ocr | +85.0 (" in (tmp_path / "card.md").read_text(encoding="utf-8")
    run(b"two", ocr=95)  # evaluated again, now that it is the champion itself
    assert GateReport.read(tmp_path / "gate.json").champion is None


def test_registering_again_after_a_promotion_writes_the_same_files(run, step, registry, tmp_path):
    run(b"one", ocr=90)
    report = run(b"two", ocr=95)
    written = {name: (tmp_path / name).read_bytes() for name in ("gate.json", "card.md")}
    tags = dict(registry.versions[2])
    assert step() == report
    assert {name: (tmp_path / name).read_bytes() for name in written} == written
    assert registry.versions[2] == tags


def test_many_objections_are_cut_to_what_a_tag_holds(run, registry, tmp_path):
    floors = dict.fromkeys((f"benchmark-{n:03}" for n in range(200)), 50.0)
    report = run(gate=GateConfig(min_score=floors), ocr=95)
    assert len(registry.versions[1][OBJECTIONS]) < MAX_OBJECTIONS_LENGTH + 100
    assert report.objections[-1].endswith(" more; see reports/gate.json")
    assert len(GateReport.read(tmp_path / "gate.json").objections) == 200


# ---- the champion has to have answered the same -----------------------------------------------


def test_answers_of_another_champion_are_not_judged_and_the_remedy_works(
    run, evaluate, step, registry
):
    run(b"one", ocr=90)
    run(b"two", ocr=95)
    evaluate(b"three", ocr=96)  # against version 2
    registry.move_alias("champion", 1)
    with pytest.raises(
        GateError, match=r"version 1 is the champion, but .* asked, version 2 was to be beaten"
    ) as caught:
        step()
    assert "`dvc repro --force --single-item evaluate`" in str(caught.value)
    assert registry.aliases["champion"] == 1
    assert VERDICT not in registry.versions[3]
    evaluate(b"three", ocr=96)
    assert step().promoted


def test_a_champion_that_was_not_asked_is_not_beaten(run, evaluate, step, registry, tmp_path):
    run(b"one", ocr=90)
    registry.move_alias("champion", None)
    evaluate(b"two", ocr=95)
    registry.move_alias("champion", 1)
    with pytest.raises(GateError, match="when they were asked, nobody was to be beaten"):
        step()


def test_a_champion_whose_files_are_gone_is_named_with_the_ways_out(run, registry, tmp_path):
    registry.versions[1] = {}
    registry.move_alias("champion", 1)
    with pytest.raises(GateError, match=r"version 1 is the champion, .* files are not in") as at:
        run(ocr=95)
    assert "`ovis promote 2 --force --reason TEXT`" in str(at.value)


def test_answers_of_another_model_are_not_judged(run, step, tmp_path):
    run(b"one", ocr=90)
    write_model(tmp_path / "model", b"two")
    with pytest.raises(GateError, match=r"holds answers of another model .*dvc repro evaluate`"):
        step()


def test_a_champion_that_sat_another_exam_is_not_compared(run, evaluate, step, registry, tmp_path):
    run(b"one", ocr=90)
    evaluate(b"two", ocr=95)
    record = tmp_path / "predictions" / "champion" / "run.json"
    record.write_text(record.read_text(encoding="utf-8").replace("exam", "old exam"))
    with pytest.raises(GateError, match="different exams: fingerprint of ocr is 'exam' for the"):
        step()
    assert VERDICT not in registry.versions[2]


def test_a_gate_that_names_an_unknown_benchmark_is_a_config_error(run):
    with pytest.raises(ConfigError, match="the rules name orc, which was not run; there are ocr"):
        run(gate=GateConfig(targets=("orc",)), ocr=95)


# ---- what a person did stays --------------------------------------------------------------------


def test_a_champion_that_a_person_took_down_waits_for_one_after_another_evaluation(
    run, registry, tmp_path
):
    run(b"one", ocr=90)
    run(b"two", ocr=95)
    files = tmp_path / "kept" / "ovis2_5"
    rollback(registry, files=files, reason="answers are too long")
    report = run(b"two", ocr=96)
    assert (report.promoted, report.waits_for_approval) == (False, True)
    assert registry.aliases == {"challenger": 2, "champion": 1}
    assert registry.versions[2][VERDICT] == "passed"
    approve(registry, 2, files=files, reason="they are not, any more")
    assert run(b"two", ocr=97).promoted


def test_a_rollback_by_hand_is_not_undone_by_the_next_run(run, registry):
    run(b"one", ocr=90)
    run(b"two", ocr=95)
    registry.move_alias("champion", 1)
    report = run(b"two", ocr=95)
    assert registry.aliases["champion"] == 1
    assert not report.promoted


def test_a_run_that_died_before_the_verdict_key_is_made_good(run, registry):
    run(b"one", ocr=90)
    whole = run(b"two", ocr=95)
    # As if killed after `previous` had moved, before `champion` did.
    registry.aliases = {"challenger": 2, "champion": 1, "previous": 1}
    del registry.versions[2][VERDICT_KEY]
    assert run(b"two", ocr=95) == whole
    assert registry.aliases == {"challenger": 2, "champion": 2, "previous": 1}


def test_the_champion_keeps_its_files_when_the_next_training_replaces_the_folder(
    run, registry, tmp_path
):
    run(b"one", ocr=95)
    run(b"two", ocr=50)
    assert (registry.places[1] / "model.safetensors").read_bytes() == b"one"


def test_kept_files_share_their_bytes_with_the_model_folder(run, registry, tmp_path):
    run(ocr=95)
    model = tmp_path / "model" / "model.safetensors"
    assert model.samefile(registry.places[1] / "model.safetensors")


def test_files_of_a_version_without_an_alias_are_dropped(run, registry, tmp_path):
    for number in range(4):
        run(b"%d" % number, ocr=90 + number)
    kept = {version for version, place in registry.places.items() if place.exists()}
    assert kept == {3, 4}  # previous and champion


def test_nan_scores_are_not_told(evaluate, step, registry, tmp_path):
    evaluate(ocr=95)
    report = json.loads((tmp_path / "evaluate.json").read_text(encoding="utf-8"))
    report["benchmarks"]["ocr"]["tuned"]["score"] = float("nan")
    (tmp_path / "evaluate.json").write_text(json.dumps(report), encoding="utf-8")
    with pytest.raises(GateError, match=r"cannot be judged: benchmarks\.ocr\.tuned\.score"):
        step()
    assert registry.versions == {}


@pytest.mark.parametrize("missing", ["evaluate.json", "predictions"])
def test_a_missing_evaluation_names_the_command(evaluate, step, tmp_path, missing):
    evaluate(ocr=95)
    (tmp_path / missing).rename(tmp_path / "away")
    with pytest.raises(GateError, match=f"{missing} is missing; run `dvc repro evaluate`"):
        step()


def test_a_model_without_a_manifest_is_not_registered(tmp_path, run, step):
    run(ocr=95)
    (tmp_path / "model" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="run `dvc repro train`"):
        step()


def test_a_model_that_does_not_say_what_it_was_trained_from_is_not_registered(
    evaluate, step, tmp_path
):
    evaluate(ocr=95)
    model = tmp_path / "model"
    (model / "lineage.json").write_text("{}", encoding="utf-8")
    write_evaluation(tmp_path, write_manifest(model), ocr=95)
    with pytest.raises(CheckpointError, match="does not name what the model was trained from"):
        step()


def test_the_report_survives_its_file(run, tmp_path):
    report = run(ocr=95)
    report.write(tmp_path / "register.json")
    assert RegisterReport.read(tmp_path / "register.json") == report
