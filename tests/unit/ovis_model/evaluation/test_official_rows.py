"""Every row that the official scorers were run on gets the official score, by rule."""

from pathlib import Path

import jinja2
import pytest

from ovis_model.evaluation.benchmarks.cells import read_list
from ovis_model.evaluation.benchmarks.header import BenchmarkHeader, read_catalogue
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.prompts import FINAL_ANSWER, SHORT_ANSWER, build_prompt
from ovis_model.evaluation.protocol import Protocol
from ovis_model.evaluation.published import read_published_scores
from ovis_model.evaluation.responses import Phase, continuation, read_phases
from ovis_model.evaluation.scoring.metrics import METRICS, MetricOptions
from ovis_model.evaluation.scoring.multiple_choice import infer_option, letter_options
from ovis_model.evaluation.scoring.profiles import PROFILES
from ovis_model.evaluation.scoring.score import compute_score
from ovis_model.tokens import CLOSING_SENTENCE
from tests.support.official_rows import needs_official_rows, official_rows, read_official

ROOT = Path(__file__).parents[4]
#: The revisions as the rows call them.
REVISIONS = {
    "2026-08-18 e8e78f05": "vlmevalkit-2026-08",
    "2025-10-08 6f67cef5": "vlmevalkit-2025-10",
    "2025-08-04 c3371551": "vlmevalkit-2025-08",
}
pytestmark = needs_official_rows


def item_of(row, **fields):
    answer = row["answer"]
    if isinstance(answer, str):
        answer = read_list(answer) or [answer]
    first, *others = map(str, answer)
    values = {"id": str(row.get("id") or row["index"]), "question": row["question"]}
    return BenchmarkItem(**{**values, "answer": first, "alternatives": others, **fields})


def mark(metric, row, item, profile="vlmevalkit-2026-08"):
    options = MetricOptions(profile=PROFILES[profile])
    return METRICS[metric].mark(row["prediction"], item, options)


def check_every_revision(metric, row, item):
    scores = row.get("expected_score_by_revision", {})
    for revision, profile in REVISIONS.items():
        found = mark(metric, row, item, profile)
        expected = scores.get(revision, row["expected_score"])
        assert METRICS[metric].credit(found) == pytest.approx(expected, abs=1e-12), revision
    return mark(metric, row, item)


@pytest.mark.parametrize("row", official_rows("multiple_choice"))
def test_multiple_choice(row):
    found = check_every_revision("multiple_choice", row, item_of(row, options=row["options"]))
    assert (found.extracted, found.needs_judge) == (row["expected_option"], row["needs_judge"])


@pytest.mark.parametrize("row", official_rows("mmmu"))
def test_mmmu(row):
    item = item_of(row, options=row["options"], answer=row["answer"], alternatives=())
    assert check_every_revision("mmmu", row, item).needs_judge is row["needs_judge"]


@pytest.mark.parametrize("row", official_rows("mmbench_circular"))
def test_mmbench_counts_questions_whose_rolls_are_all_right(row):
    items = [item_of(roll, options=roll["options"]) for roll in row["rolls"]]
    marks = [
        mark("multiple_choice", roll, item) for roll, item in zip(row["rolls"], items, strict=True)
    ]
    score = compute_score(items, marks, METRICS["multiple_choice"], "circular")
    assert (score.value, score.num_units) == (100.0 * row["expected_score"], 1)


@pytest.mark.parametrize("row", official_rows("mathvista"))
def test_mathvista(row):
    columns = {
        key: row[key] for key in ("question_type", "answer_type", "answer_option") if row[key]
    }
    item = item_of(
        row,
        options=letter_options(row["choices"]),
        columns=columns,
        answer=row["answer"],
        alternatives=(),
    )
    assert check_every_revision("mathvista", row, item).needs_judge is row["official_needs_judge"]


@pytest.mark.parametrize("row", official_rows("ocrbench"))
def test_ocrbench(row):
    check_every_revision("ocrbench", row, item_of(row, columns={"category": row["category"]}))


@pytest.mark.parametrize(
    "row", [case for case in official_rows("hallusionbench") if "set" not in case.values[0]]
)
def test_hallusionbench(row):
    found = check_every_revision("hallusionbench", row, item_of(row))
    assert (found.extracted, found.needs_judge) == (row["expected_answer"], row["needs_judge"])


def test_hallusionbench_is_the_mean_of_three_accuracies():
    (row,) = [row for row in read_official("hallusionbench")["rows"] if "set" in row]
    items = [item_of(entry) for entry in row["set"]]
    marks = [
        mark("hallusionbench", entry, item) for entry, item in zip(row["set"], items, strict=True)
    ]
    score = compute_score(items, marks, METRICS["hallusionbench"], "hallusionbench")
    assert score.value == pytest.approx(row["expected_overall_mean"], abs=1e-6)
    for name, accuracies in row["expected_aggregate"].items():
        for key, value in accuracies.items():
            part = key if name == "Overall" else f"{name} {key}"
            assert score.parts[part] == pytest.approx(value, abs=1e-6), part


@pytest.mark.parametrize("row", official_rows("chartqa"))
def test_chartqa(row):
    check_every_revision("chartqa", row, item_of(row))


@pytest.mark.parametrize("row", official_rows("docvqa_anls"))
def test_docvqa(row):
    check_every_revision("anls", row, item_of(row))


@pytest.mark.parametrize("row", official_rows("vqa_score"))
def test_vqa_score(row):
    check_every_revision("vqa", row, item_of(row))
    original = mark("vqav2", row, item_of(row)).value
    assert original == pytest.approx(row["expected_score_vqav2_original"], abs=1e-12)


@pytest.mark.parametrize("row", official_rows("videomme"))
def test_videomme(row):
    found = check_every_revision("videomme", row, item_of(row))
    assert (found.extracted, found.needs_judge) == (row["expected_option"], row["needs_judge"])


@pytest.mark.parametrize("row", official_rows("grounding"))
def test_grounding(row):
    item = item_of(row, box=row["answer"], size=(row["width"], row["height"]))
    found = check_every_revision("grounding", row, item)
    assert found.value == pytest.approx(row["expected_iou"], abs=1e-6)
    assert found.strict is bool(row["expected_score_strict"])
    assert found.conforms is row["conforms_to_ovis_format"]


@pytest.mark.parametrize("row", official_rows("thinking_postprocess"))
def test_thinking(row):
    phases = [Phase(**phase) for phase in row["phases"]]
    found = read_phases(phases, enable_thinking=True, asks_for_final_answer=True)
    assert found.text == row["full_text"]
    assert found.thinking == row["expected_thinking"]
    assert found.response == row["expected_response"]
    assert found.prediction == row["prediction"]
    flags = {name: getattr(found, name) for name in row["expected_flags"]}
    assert flags == row["expected_flags"]
    assert (continuation(phases[0]) is None) is (row["second_call_max_tokens"] is None)
    # The rows were marked under the revision that brought Ovis2.5.
    letter = infer_option(found.prediction, row["options"], PROFILES["vlmevalkit-2025-10"])
    assert (letter or "Z") == row["expected_option"]
    assert (letter == row["answer"]) == row["expected_score"]


def test_the_words_in_the_rows_are_those_in_the_code():
    official = read_official("thinking_postprocess")
    assert official["forced_close_text"] == CLOSING_SENTENCE
    assert official["suffix"] == "\n" + FINAL_ANSWER


def header_of(dataset):
    entry = {"version": 1, "metric": "exact", "prompt": "question", "name": dataset}
    return BenchmarkHeader.model_validate(
        {**entry, **read_catalogue().get(dataset, {}), "items": "x.tsv"}
    )


@pytest.mark.parametrize("row", official_rows("prompts_and_settings"))
def test_settings(row):
    settings = Protocol("published", row["size"]).settings(header_of(row["dataset"]))
    generation, pixels = settings.generation, settings.pixel_limits
    assert generation.enable_thinking is row["expected_enable_thinking"]
    assert generation.thinking_budget == row["expected_thinking_budget"]
    assert generation.max_new_tokens == row["expected_max_new_tokens"]
    for kind in ("single_image", "multiple_image", "video"):
        bounds = (row["expected_min_pixels"], row["expected_max_pixels"])
        assert pixels.bounds(kind, count=3) == bounds
    if row["expected_sampling"] == {"temperature": 0.0}:
        assert not generation.do_sample
        assert generation.repetition_penalty is None
    else:
        assert generation.do_sample
        sampling = {name: getattr(generation, name) for name in row["expected_sampling"]}
        assert sampling == row["expected_sampling"]


@pytest.mark.parametrize(
    "row",
    [case for case in official_rows("prompts_and_settings") if "n_images" in case.values[0]],
)
def test_prompt(row):
    line = dict(row["tsv_line"] or {"index": 1})
    text = line.get("question") or row["message_text"].removesuffix("\n" + SHORT_ANSWER)
    item = BenchmarkItem(
        id=str(line["index"]),
        question=text,
        answer="?",
        hint=line.get("hint", ""),
        options={letter: line[letter] for letter in "ABCD" if letter in line},
        image=tuple(f"{index}.png" for index in range(row["n_images"])),
    )
    prompt = build_prompt(item, header_of(row["dataset"]).prompt)
    template = (ROOT / "data/sample/chat_template.jinja").read_text(encoding="utf-8")
    written = jinja2.Template(template).render(
        messages=[prompt.message],
        add_generation_prompt=True,
        enable_thinking=row["expected_enable_thinking"],
    )
    assert written == row["expected_prompt"]
    assert prompt.text in written
    assert prompt.asks_for_final_answer is (FINAL_ANSWER in row["expected_prompt"])


def test_the_published_numbers_are_those_of_the_rows():
    rows = read_official("published_scores")["rows"]
    shipped = [entry.model_dump(exclude_defaults=True) for entry in read_published_scores()]
    assert shipped == rows
