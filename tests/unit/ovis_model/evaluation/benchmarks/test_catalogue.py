"""Every benchmark that is known by name reads a table of its kind, asks and marks."""

import json
import re
from pathlib import Path

import pytest
import yaml

from ovis_model.errors import DataError
from ovis_model.evaluation.benchmarks.benchmark import load_benchmark
from ovis_model.evaluation.benchmarks.header import BenchmarkHeader, read_catalogue
from ovis_model.evaluation.prompts import FINAL_ANSWER, OPTION_LETTER, SHORT_ANSWER
from ovis_model.evaluation.scoring.metrics import METRICS
from tests.support.tables import as_cell, png, write_table

DOCS = Path(__file__).parents[5] / "docs" / "evaluation.md"
RED = as_cell(png())
CHOICE = {"index": "1", "question": "Which?", "A": "cup", "B": "key", "answer": "B", "image": RED}
OPEN = {"index": "1", "question": "What?", "answer": "7", "image": RED}
VIDEO = {"index": "1", "question": "What?", "video_path": "v.mp4"}

#: A row, a right answer, and what the prompt ends in.
CASES = {
    "MMBench_DEV_EN_V11": (CHOICE, "B", f"B. key\n{FINAL_ANSWER}"),
    "MMStar": (CHOICE, "key", f"B. key\n{FINAL_ANSWER}"),
    "MMMU_DEV_VAL": (
        {**CHOICE, "question": "<image 1>?", "split": "validation"},
        "(B)",
        f"\n<image>\n?\nA. cup\nB. key\n{FINAL_ANSWER}",
    ),
    "AI2D_TEST": (CHOICE, "B", f"B. key\n{OPTION_LETTER}"),
    "MathVista_MINI": (
        {**OPEN, "question_type": "free_form", "answer_type": "integer", "choices": "[]"},
        "7",
        f"What?\n{FINAL_ANSWER}",
    ),
    "OCRBench": ({**OPEN, "answer": "['7']", "category": "X"}, "a 7", "<image>\nWhat?"),
    "HallusionBench": (
        {**OPEN, "index": "VD_ocr_1_0_0_0", "answer": "No"},
        "no.",
        f"What? Please answer yes or no.\n{FINAL_ANSWER}",
    ),
    "ChartQA_TEST": ({**OPEN, "answer": "['100']"}, "105", f"What?\n{SHORT_ANSWER}"),
    "DocVQA_VAL": ({**OPEN, "answer": "['seven']"}, "Seven", f"What?\n{SHORT_ANSWER}"),
    "TextVQA_VAL": (
        {**OPEN, "answer": str(["stop"] * 10)},
        "Stop!",
        f"What?\n{SHORT_ANSWER}",
    ),
    "RefCOCO": (
        {**OPEN, "answer": "[1, 1, 4, 4]", "width": "4", "height": "4", "split": "RefCOCO_val"},
        "<box>(0.25,0.25),(1,1)</box>",
        "What?",
    ),
    "Video-MME": (
        {
            **OPEN,
            "image": "",
            "answer": "A",
            "candidates": "['A. x', 'B. y']",
            "video_path": "v.mp4",
        },
        "A.",
        "Question: What?\nA. x\nB. y\nAnswer: ",
    ),
}


def load(folder, name, row):
    shown = {column: cell for column, cell in row.items() if cell}
    write_table(folder / "x.tsv", [shown])
    text = f"catalogue: {name}\nitems: {folder / 'x.tsv'}\n"
    (folder / "x.yaml").write_text(text, encoding="utf-8")
    return load_benchmark(folder / "x.yaml")


@pytest.mark.parametrize("name", CASES)
def test_two_lines_make_a_known_benchmark(tmp_path, name):
    row, answer, ending = CASES[name]
    benchmark = load(tmp_path, name, row)
    (item,) = benchmark.items
    assert benchmark.prompt(item).text.endswith(ending)
    right, wrong = benchmark.mark(item, answer), benchmark.mark(item, "zzz")
    assert (right.correct, wrong.correct) == (True, False)
    assert benchmark.score([right]).value == 100.0
    assert benchmark.score([wrong]).value == 0.0
    assert benchmark.is_official_file is False


def test_the_catalogue_holds_what_is_tested_here():
    assert set(read_catalogue()) == set(CASES)
    assert all(len(entry["md5"]) == 32 for entry in read_catalogue().values())


def test_keys_of_one_s_own_come_first(tmp_path):
    row, *_ = CASES["MMMU_DEV_VAL"]
    write_table(tmp_path / "x.tsv", [{**row, "split": "dev"}])
    values = {"catalogue": "MMMU_DEV_VAL", "name": "mine", "split": "dev", "items": "x.tsv"}
    (tmp_path / "x.yaml").write_text(json.dumps(values), encoding="utf-8")
    benchmark = load_benchmark(tmp_path / "x.yaml")
    assert (benchmark.name, benchmark.header.official_name) == ("mine", "MMMU_DEV_VAL")


def test_an_unknown_entry_is_explained(tmp_path):
    with pytest.raises(DataError, match="there is no 'MMStat'; it has AI2D_TEST, ChartQA_TEST"):
        load(tmp_path, "MMStat", OPEN)


def test_the_example_of_five_lines_in_the_docs_works(tmp_path):
    text = DOCS.read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(name: invoices.*?)```\n\n```json\n(.*?)```", text, re.DOTALL)
    declared, line = found.groups()
    assert len(yaml.safe_load(declared)) == declared.count("\n") == 5
    (tmp_path / "invoices.yaml").write_text(declared, encoding="utf-8")
    (tmp_path / "invoices.jsonl").write_text(line, encoding="utf-8")
    benchmark = load_benchmark(tmp_path / "invoices.yaml")
    (item,) = benchmark.items
    assert benchmark.mark(item, "The total is $1,234.51.").correct
    assert not benchmark.mark(item, "The total is $1,234.52.").correct


def test_the_docs_name_every_key_metric_and_prompt():
    named = set(re.findall(r"`([\w.-]+)`", DOCS.read_text(encoding="utf-8")))
    styles = BenchmarkHeader.model_fields["prompt"].annotation.__args__
    assert {*BenchmarkHeader.model_fields, *METRICS, *styles, *CASES} <= named
