"""Benchmarks become questions: own settings or official ones, and rows that mark alike again."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from ovis_model.config import EvaluateConfig
from ovis_model.errors import ConfigError, DataError
from ovis_model.evaluation.benchmarks.benchmark import load_benchmarks
from ovis_model.evaluation.exams import (
    build_exams,
    describe_protocol,
    official_protocol,
    with_budget,
)
from ovis_model.evaluation.exchange import export_rows, import_file
from ovis_model.evaluation.marking import find_marker, mark_again
from ovis_model.evaluation.predictions import Run
from ovis_model.evaluation.protocol import Protocol
from ovis_model.evaluation.published import find_published
from ovis_model.evaluation.running import ask
from tests.support.exams import ScriptedBackend
from tests.support.tables import as_cell, png, write_table
from tests.support.tiny_model import build_tiny_checkpoint

CONFIG = EvaluateConfig(benchmarks="", thinking_budget=4, max_new_tokens=36)
THINKING_ON = CONFIG.model_copy(update={"preset": "thinking_on"})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_checkpoint(tmp_path_factory.mktemp("exams") / "tiny")


@pytest.fixture
def folder(tmp_path):
    """A circular benchmark of two rolls, as VLMEvalKit keeps it, and one of our own."""
    here = tmp_path / "benchmarks"
    here.mkdir()
    Image.new("RGB", (32, 32)).save(here / "a.png")
    items = [
        {"id": name, "image": ["a.png"], "question": "<image>\nWhich digit?", "answer": "7"}
        for name in ("x", "y")
    ]
    (here / "own.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))
    (here / "own.yaml").write_text("{name: own, version: 1, items: own.jsonl, metric: exact}")
    rows = [
        {"index": "5", "question": "Which?", "A": "cat", "B": "dog", "answer": "A"},
        {"index": "1000005", "question": "Which?", "A": "dog", "B": "cat", "answer": "B"},
    ]
    picture = as_cell(png())
    write_table(here / "mmb.tsv", [{**row, "category": "c", "image": picture} for row in rows])
    (here / "mmb.yaml").write_text("{catalogue: MMBench_DEV_EN_V11, name: mmb, items: mmb.tsv}")
    return here


def exams_of(folder, model, config=CONFIG):
    return {one.name: one for one in build_exams(load_benchmarks(folder), config, model=model)}


def run_of(folder, model, script, config=CONFIG, **others):
    exams = list(exams_of(folder, model, config).values())
    backend = ScriptedBackend(script)
    working = folder.parent / "working"
    return ask(exams, backend, working=working, protocol=describe_protocol(config), **others)


def test_own_settings_are_those_of_the_section(folder, model):
    exam = exams_of(folder, model)["own"]
    settings = exam.settings
    assert (settings.thinking_budget, settings.max_new_tokens, settings.do_sample) == (
        4,
        36,
        False,
    )
    assert exam.seeds == (0,)
    assert [one.index for one in exam.questions] == ["x", "y"]
    assert exam.questions[0].prompt == "<image>\nWhich digit?"
    assert len({one.cluster for one in exam.questions}) == 1


def test_presets_bring_official_settings_and_three_seeds(folder, model):
    exam = exams_of(folder, model, THINKING_ON)["mmb"]
    settings = exam.settings
    assert (settings.thinking_budget, settings.max_new_tokens) == (6144, 8192)
    assert (settings.temperature, settings.top_p, settings.top_k) == (0.6, 0.95, 20)
    assert exam.seeds == (0, 1, 2)
    assert exam.pixels == (1024 * 1024, 1792 * 1792)
    assert exam.parts == ("all:question",)
    assert exam.questions[0].prompt.endswith("End your response with 'Final answer: '.")
    off = exams_of(folder, model, CONFIG.model_copy(update={"preset": "thinking_off"}))["mmb"]
    assert (off.settings.enable_thinking, off.seeds) == (False, (0,))
    assert off.fingerprint != exam.fingerprint


def test_the_published_preset_needs_a_published_size(folder, model):
    with pytest.raises(ConfigError, match="the layers of neither"):
        exams_of(folder, model, CONFIG.model_copy(update={"preset": "published"}))


def test_official_answers_are_what_follows_the_last_final_answer(folder, model):
    said = {"5": "It may be B. Final answer: A", "1000005": "Final answer: B", "x": "7", "y": "7"}
    run = run_of(folder, model, said, THINKING_ON)
    assert {row.score for row in run.rows["mmb"]} == {1}
    assert run.record.protocol == {"preset": "thinking_on"}
    own = run_of(folder, model, said)
    # Under settings of one's own all that follows the thought is the answer.
    assert [row.status for row in own.rows["mmb"]] == ["unresolved", "scored"]


def test_a_run_says_why_no_published_number_stands_beside_its_score(folder, model):
    run = run_of(folder, model, {"5": "hm"}, THINKING_ON)
    protocol = official_protocol("thinking_on", model)
    found = {one.name: find_published(one, protocol, run) for one in load_benchmarks(folder)}
    assert found["mmb"].score is None
    assert "the preset is thinking_on, not published" in found["mmb"].obstacles
    nine = find_published(load_benchmarks(folder)[0], Protocol("published", "9B"), run)
    assert (nine.score, bool(nine.source)) == (84.9, True)
    assert any("TEST split" in why for why in nine.obstacles)
    assert any("went to a judge" in why for why in nine.obstacles)


def test_a_budget_leaves_the_answer_its_room(folder, model):
    exam = exams_of(folder, model)["own"]
    more = with_budget(exam, 100)
    assert (more.settings.thinking_budget, more.settings.max_new_tokens) == (100, 132)
    none = with_budget(exam, 0)
    assert (none.settings.enable_thinking, none.settings.max_new_tokens) == (False, 32)
    assert len({one.fingerprint for one in (exam, more, none)}) == 3


def markers_of(run, folder):
    return {one.name: find_marker(run, one) for one in load_benchmarks(folder)}


def test_stored_rows_are_marked_again_without_a_model(folder, model):
    run = run_of(folder, model, {"x": "8"}, THINKING_ON)
    spoilt = {
        name: tuple(row.model_copy(update={"score": 0.5, "extracted": "?"}) for row in rows)
        for name, rows in run.rows.items()
    }
    assert mark_again(replace(run, rows=spoilt), markers_of(run, folder)) == run


def test_a_run_is_not_marked_by_another_benchmark(folder, model):
    run = run_of(folder, model, {})
    markers = markers_of(run, folder)
    with pytest.raises(DataError, match=r"answers to mmb, which is none .* \(own\)"):
        mark_again(run, {"own": markers["own"]})
    changed = (folder / "own.jsonl").read_text().replace('"7"', '"8"')
    (folder / "own.jsonl").write_text(changed)
    with pytest.raises(DataError, match=r"own: the benchmark has changed .* for x, y"):
        mark_again(run, markers_of(run, folder))


def test_a_run_marked_by_unknown_rules_is_refused(folder, model):
    run = run_of(folder, model, {})
    odd = run.record.model_copy(update={"conditions": {"scorer": "v0"}})
    with pytest.raises(DataError, match="marked by 'v0', which is not known"):
        markers_of(Run(odd, run.rows), folder)


# ---- VLMEvalKit's files ---------------------------------------------------------------------


@pytest.mark.parametrize("form", ["tsv", "json"])
def test_exported_predictions_come_back_with_the_same_scores(folder, model, tmp_path, form):
    long = "thinking " * 5000
    said = {"5": f"{long}\n\tFinal answer: A", "1000005": "Final answer: dog", "x": "7", "y": ""}
    run = run_of(folder, model, said, THINKING_ON)
    markers = markers_of(run, folder)
    for name, rows in run.rows.items():
        path = export_rows(rows, markers[name], tmp_path / "out", name="Mine", form=form)
        back = import_file(path, markers[name].benchmark, name="Mine")
        first = [row for row in rows if row.seed == 0]
        assert [(row.index, row.score, row.status) for row in back.rows[name]] == [
            (row.index, row.score, row.status) for row in first
        ]
    assert (tmp_path / "out" / f"Mine_MMBench_DEV_EN_V11.{form}").is_file()


def test_an_exported_table_has_the_columns_of_the_original(folder, model, tmp_path):
    run = run_of(folder, model, {"5": "A"})
    marker = markers_of(run, folder)["mmb"]
    path = export_rows(run.rows["mmb"], marker, tmp_path, name="Mine", form="tsv")
    header, first, _ = path.read_text().splitlines()
    assert header.split("\t") == [
        "index",
        "question",
        "A",
        "B",
        "answer",
        "category",
        "prediction",
    ]
    assert first.split("\t")[-1] == "A"
    path = export_rows(run.rows["mmb"], marker, tmp_path, name="Mine", form="json")
    assert [one["index"] for one in json.loads(path.read_text())] == [5, 1000005]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"index": 1}]', "record 1: there is no index and prediction"),
        ('{"index": 1}', "holds no list of objects"),
        ("[", "cannot be read as JSON"),
        (
            '[{"index": "x", "prediction": "7"}, {"index": "x", "prediction": "7"}]',
            "record 2: the index 'x' is there twice",
        ),
        ('[{"index": "x", "prediction": "7"}]', "do not have the same questions: y"),
    ],
)
def test_a_file_that_holds_no_predictions_is_refused(folder, tmp_path, content, message):
    path = tmp_path / "p.json"
    path.write_text(content)
    (benchmark,) = [one for one in load_benchmarks(folder) if one.name == "own"]
    with pytest.raises(DataError, match=message):
        import_file(path, benchmark, name="m")
    with pytest.raises(DataError, match=r"neither \.tsv nor \.json"):
        import_file(tmp_path / "p.xlsx", benchmark, name="m")


def test_errors_are_not_exported(folder, model, tmp_path):
    run = run_of(folder, model, {})
    failed = [row.model_copy(update={"status": "error"}) for row in run.rows["own"]]
    with pytest.raises(DataError, match="own: x, y got no answer"):
        export_rows(failed, markers_of(run, folder)["own"], tmp_path, name="m", form="tsv")
