"""`ovis eval` from the command line: every command on a tiny model and four questions."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from ovis_model.evaluation.predictions import read_run
from ovis_model.inference.auto_budget import read_auto_budget
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from tasks.cli import main
from tests.support.stub_server import serving
from tests.support.tiny_model import build_tiny_checkpoint

ROOT = Path(__file__).parents[4]
SECTIONS = {
    "validate": {"raw_data": "raw"},
    "extract": {},
    "train": {"ovis_pretrained_path": "base"},
    "evaluate": {"benchmarks": "benchmarks", "thinking_budget": 2, "max_new_tokens": 32},
    "register": {},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A working tree with a checkpoint, a benchmark of four items, and a run of it."""
    root = tmp_path_factory.mktemp("tree")
    build_tiny_checkpoint(root / "tiny")
    folder = root / "benchmarks"
    folder.mkdir()
    lines = []
    for number in range(4):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"{number}.png")
        item = {"id": f"i{number}", "image": [f"{number}.png"], "question": "<image>\nWhich?"}
        lines.append(json.dumps({**item, "answer": "7"}) + "\n")
    (folder / "digits.jsonl").write_text("".join(lines), encoding="utf-8")
    header = {"name": "digits", "version": 1, "items": "digits.jsonl", "metric": "exact"}
    (folder / "digits.yaml").write_text(yaml.safe_dump(header), encoding="utf-8")
    (root / "params.yaml").write_text(yaml.safe_dump(SECTIONS), encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def inside(tree, monkeypatch):
    monkeypatch.chdir(tree)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def ovis(capsys):
    """Run the command; return its exit code and what it wrote."""

    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr()

    return command


def test_a_run_is_written_with_its_summary_and_not_repeated(ovis, tree):
    code, said = ovis("eval", "run", "tiny", "--out", "runs/a")
    assert code == 0
    assert "4 answers in runs/a" in said.out
    assert "digits" in said.out
    assert "4/4" in said.err
    first = read_run(tree / "runs/a")
    summary = json.loads((tree / "runs/a/summary.json").read_text())
    assert summary["benchmarks"]["digits"]["num_rows"] == 4
    assert summary["seconds_per_answer"]["digits"] > 0
    assert ovis("eval", "run", "tiny", "--out", "runs/a")[0] == 0
    assert read_run(tree / "runs/a") == first


def test_shards_end_with_the_run_of_one_process(ovis, tree):
    assert ovis("eval", "run", "tiny", "--out", "runs/one")[0] == 0
    code, said = ovis("eval", "run", "tiny", "--out", "runs/two", "--shard", "0/2")
    assert (code, said.out) == (0, "shard 0 of 2 is done; others are not yet\n")
    assert not (tree / "runs/two").exists()
    assert ovis("eval", "run", "tiny", "--out", "runs/two", "--shard", "1/2")[0] == 0
    assert texts(tree / "runs/two") == texts(tree / "runs/one")


def texts(folder):
    return [(row.index, row.raw_output, row.score) for row in read_run(folder).rows["digits"]]


def test_torchrun_shares_a_run_between_its_processes(tree, ovis):
    assert ovis("eval", "run", "tiny", "--out", "runs/alone")[0] == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "tasks.cli", "eval", "run", "tiny", "--out", "runs/ranks"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert texts(tree / "runs/ranks") == texts(tree / "runs/alone")
    files = sorted(path.name for path in (tree / "runs/.ranks.resume").rglob("*.jsonl"))
    assert files == ["0-of-2.jsonl", "1-of-2.jsonl"]


def test_a_served_model_is_asked_and_needs_no_weights(ovis, tree):
    processor = Ovis2_5Processor.from_pretrained(tree / "tiny")
    with serving(processor, lambda seen: ("<think>hm</think>7", "stop")) as stub:
        code, said = ovis("eval", "run", "tiny", "--endpoint", stub.url, "--out", "runs/served")
    assert code == 0
    assert "100.0 %" in said.out
    assert {seen.body["model"] for seen in stub.seen} == {"tiny"}
    assert read_run(tree / "runs/served").record.conditions["backend"] == "openai"
    code, said = ovis("eval", "run", "tiny", "--endpoint", "localhost", "--out", "runs/x")
    assert code == 2
    assert "is no address" in said.err


def test_questions_without_an_answer_end_with_an_error_and_are_asked_again(ovis, tree):
    processor = Ovis2_5Processor.from_pretrained(tree / "tiny")
    arguments = ("eval", "run", "tiny", "--out", "runs/holes", "--endpoint")
    with serving(processor, lambda seen: (400, "no")) as stub:
        code, said = ovis(*arguments, stub.url)
    assert code == 1
    assert "4 of 4 questions got no answer" in said.err
    with serving(processor, lambda seen: ("7", "stop")) as stub:
        assert ovis(*arguments, stub.url)[0] == 0


def test_stored_runs_are_scored_compared_and_exchanged(ovis, tree):
    assert ovis("eval", "run", "tiny", "--out", "runs/a")[0] == 0
    code, said = ovis("eval", "score", "runs/a", "--out", "runs/again")
    assert (code, "digits" in said.out) == (0, True)
    assert read_run(tree / "runs/again") == read_run(tree / "runs/a")
    code, said = ovis("eval", "compare", "runs/a", "runs/again")
    assert code == 4
    assert "guard" in said.out
    code, said = ovis("eval", "export", "runs/a", "--name", "Tiny", "--out", "out")
    assert (code, said.out) == (0, "4 predictions in out/Tiny_digits.tsv\n")
    yaml_file = "benchmarks/digits.yaml"
    file = "out/Tiny_digits.tsv"
    assert ovis("eval", "import", file, "--benchmark", yaml_file, "--out", "runs/back")[0] == 0
    assert [row.score for row in read_run(tree / "runs/back").rows["digits"]] == [
        row.score for row in read_run(tree / "runs/a").rows["digits"]
    ]


def test_a_sweep_records_the_budget_beside_the_model(ovis, tree):
    code, said = ovis("eval", "sweep", "tiny", "--budgets", 0, 2, "--out", "sweep")
    assert code == 0
    assert "<- auto" in said.out
    assert "<svg" in (tree / "sweep/sweep.html").read_text(encoding="utf-8")
    assert read_auto_budget(tree / "tiny") in (0, 2)


def test_both_speeds_are_told_from_one_process(ovis):
    code, said = ovis("eval", "speed", "tiny")
    assert code == 0
    assert re.search(r"4 items: .* items/s one by one, .* up to 32 at a time", said.out)
    assert said.out.endswith("4 of 4 texts equal\n")


def test_a_model_that_is_neither_folder_nor_alias_is_refused(ovis):
    code, said = ovis("eval", "run", "gone")
    assert code == 2
    assert "'gone' is neither a folder nor an alias; aliases are challenger, champion" in said.err
