"""A run loses nothing to a kill, asks nothing twice, and is the same however it was shared."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from ovis_model.errors import ConfigError, DataError
from ovis_model.evaluation.exam import Failure, seeds_of
from ovis_model.evaluation.predictions import read_predictions, read_run
from ovis_model.evaluation.running import ask, drop_unused, refuse_errors, write_run
from ovis_model.evaluation.shards import Shard
from ovis_model.evaluation.working_rows import WorkingRows, code_digest
from ovis_model.inference.generation import GenerationSettings
from tests.support.exams import Killed, ScriptedBackend, exam, output, question

QUESTIONS = [question(number, colour=number // 2) for number in range(6)]


def rows_of(run):
    return {name: list(rows) for name, rows in run.rows.items()}


def test_every_question_has_a_row_in_its_order(tmp_path):
    backend = ScriptedBackend({"1": "8", "3": ""})
    run = ask([exam(QUESTIONS)], backend, working=tmp_path)
    rows = run.rows["digits"]
    assert [row.index for row in rows] == list("012345")
    assert [row.score for row in rows] == [1, 0, 1, 0, 1, 1]
    assert [row.status for row in rows].count("invalid") == 1
    assert run.record.benchmarks["digits"].num_items == 6
    assert run.record.provenance["code"] == code_digest()


def test_a_killed_run_goes_on_with_what_is_missing(tmp_path):
    whole = ask([exam(QUESTIONS)], ScriptedBackend({"2": "1"}), working=tmp_path / "whole")
    with pytest.raises(Killed):
        ask([exam(QUESTIONS)], ScriptedBackend({"3": Killed()}), working=tmp_path / "killed")
    (file,) = (tmp_path / "killed").rglob("*.jsonl")
    with file.open("ab") as torn:
        torn.write(b'{"model": "m", "ben')
    again = ScriptedBackend({"2": "1"})
    run = ask([exam(QUESTIONS)], again, working=tmp_path / "killed")
    assert again.asked == [("3", 0), ("4", 0), ("5", 0)]
    # The third answer is older than the script of the second attempt.
    assert [row.response for row in run.rows["digits"]] == list("777777")
    assert [row.index for row in run.rows["digits"]] == [row.index for row in whole.rows["digits"]]


def test_what_was_answered_is_not_asked_again(tmp_path):
    first = ask([exam(QUESTIONS)], ScriptedBackend(), working=tmp_path)
    idle = ScriptedBackend()
    assert rows_of(ask([exam(QUESTIONS)], idle, working=tmp_path)) == rows_of(first)
    assert idle.asked == []


@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        (question(1, colour=0, text="Which letter?"), ["1"]),
        (question(1, colour=0, truth="8"), ["1"]),
        (question(1, colour=200), ["1"]),
    ],
    ids=["prompt", "truth", "picture"],
)
def test_a_question_that_changed_is_asked_again_alone(tmp_path, changed, asked):
    ask([exam(QUESTIONS)], ScriptedBackend(), working=tmp_path)
    backend = ScriptedBackend()
    ask([exam([QUESTIONS[0], changed, *QUESTIONS[2:]])], backend, working=tmp_path)
    assert [index for index, _ in backend.asked] == asked
    assert ask([exam([changed])], ScriptedBackend(), working=tmp_path) is not None


@pytest.mark.parametrize(
    "other",
    [
        {"model": "another"},
        {"conditions": {"backend": "other"}},
        {"settings": GenerationSettings(max_new_tokens=37, enable_thinking=True)},
    ],
    ids=["model", "backend", "settings"],
)
def test_answers_under_other_conditions_do_not_count(tmp_path, other):
    ask([exam(QUESTIONS)], ScriptedBackend(), working=tmp_path)
    settings = {"settings": other.pop("settings")} if "settings" in other else {}
    backend = ScriptedBackend(**other)
    ask([exam(QUESTIONS, **settings)], backend, working=tmp_path)
    assert len(backend.asked) == 6


def test_a_question_without_an_answer_is_a_row_with_the_reason_and_asked_again(tmp_path):
    run = ask([exam(QUESTIONS)], ScriptedBackend({"4": Failure("no route")}), working=tmp_path)
    row = run.rows["digits"][4]
    assert (row.status, row.error, row.score, row.finish_reason) == ("error", "no route", 0, None)
    with pytest.raises(DataError, match=r"1 of 6 questions got no answer: digits, 4: no route"):
        refuse_errors(run)
    again = ScriptedBackend()
    mended = ask([exam(QUESTIONS)], again, working=tmp_path)
    assert again.asked == [("4", 0)]
    refuse_errors(mended)
    (file,) = tmp_path.rglob("*.jsonl")
    assert len(read_predictions(file).rows) == 6


def test_each_seed_is_asked_once(tmp_path):
    backend = ScriptedBackend()
    run = ask([exam(QUESTIONS[:2], seeds=(0, 1, 2))], backend, working=tmp_path)
    assert sorted(backend.asked) == [(index, seed) for index in "01" for seed in range(3)]
    assert [row.key for row in run.rows["digits"]] == sorted(backend.asked)


def test_three_seeds_where_sampling_is_on_and_one_where_not():
    greedy, sampled = GenerationSettings(9), GenerationSettings(9, do_sample=True)
    assert seeds_of(greedy, 5, None) == (0,)
    assert seeds_of(sampled, 5, None) == (5, 6, 7)
    assert seeds_of(sampled, 5, 2) == (5, 6)


@pytest.mark.parametrize("count", [2, 3])
def test_shards_together_are_one_run(tmp_path, count):
    whole = ask([exam(QUESTIONS)], ScriptedBackend({"1": "8"}), working=tmp_path / "one")
    backends = [ScriptedBackend({"1": "8"}) for _ in range(count)]
    runs = [
        ask([exam(QUESTIONS)], backend, working=tmp_path / "n", shard=Shard(rank, count))
        for rank, backend in enumerate(backends)
    ]
    assert runs[:-1] == [None] * (count - 1)
    assert rows_of(runs[-1]) == rows_of(whole)
    asked = [key for backend in backends for key in backend.asked]
    assert sorted(asked) == [(index, 0) for index in "012345"]


def test_questions_on_one_picture_stay_in_one_shard():
    asked = exam(QUESTIONS).asked
    shares = [[one.question.index for one in Shard(rank, 2).take(asked)] for rank in range(2)]
    assert shares == [["0", "1", "4", "5"], ["2", "3"]]


def test_rows_of_another_number_of_shards_count(tmp_path):
    ask([exam(QUESTIONS)], ScriptedBackend(), working=tmp_path, shard=Shard(0, 2))
    backend = ScriptedBackend()
    run = ask([exam(QUESTIONS)], backend, working=tmp_path)
    assert [index for index, _ in backend.asked] == ["2", "3"]
    assert len(run.rows["digits"]) == 6


def test_torchrun_says_which_shard_a_process_is():
    environment = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert Shard.of_environment(environment) == Shard(3, 8, 1)
    assert Shard.of_environment({"RANK": "3"}) == Shard()


@pytest.mark.parametrize("text", ["4/4", "1", "a/b", "-1/2"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="write i/n with i from 0 to n-1"):
        Shard.parse(text)


@pytest.mark.parametrize(
    ("said", "flag"),
    [
        (output(closed="forced"), "forced_close"),
        (output("", closed="never"), "unclosed_thinking"),
        (output(closed="none"), "no_think_block"),
        (output(finish_reason="length"), "answer_truncated"),
    ],
)
def test_how_an_answer_ended_is_flagged(tmp_path, said, flag):
    run = ask([exam(QUESTIONS[:1])], ScriptedBackend({"0": said}), working=tmp_path)
    flags = run.rows["digits"][0].flags.model_dump()
    assert [name for name, raised in flags.items() if raised] == [flag]


def test_a_written_run_is_read_back_and_replaces_the_old_one_whole(tmp_path):
    run = ask([exam(QUESTIONS)], ScriptedBackend(), working=tmp_path / "working")
    out = tmp_path / "reports" / "run"
    out.mkdir(parents=True)
    (out / "stale.jsonl").touch()
    write_run(run, out)
    assert read_run(out) == run
    assert sorted(path.name for path in out.parent.rglob("*")) == [
        "digits.jsonl", "run", "run.json"
    ]  # fmt: skip


def test_rows_that_no_run_needs_any_more_are_dropped(tmp_path):
    old, new = ScriptedBackend(model="old"), ScriptedBackend(model="new")
    for backend in (old, new):
        ask([exam(QUESTIONS)], backend, working=tmp_path)
    drop_unused(tmp_path, [WorkingRows.of(tmp_path, exam(QUESTIONS), new, Shard()).folder])
    idle = ScriptedBackend(model="new")
    ask([exam(QUESTIONS)], idle, working=tmp_path)
    assert idle.asked == []
    ask([exam(QUESTIONS)], old, working=tmp_path)
    assert len(old.asked) == 12


SLOW_RUN = """
    import sys, time
    from pathlib import Path
    from ovis_model.evaluation.running import ask
    from tests.support.exams import ScriptedBackend, exam, question

    class Slow(ScriptedBackend):
        def answer(self, asked, settings, pixels):
            for answered in super().answer(asked, settings, pixels):
                yield answered
                time.sleep(0.2)

    ask([exam([question(i, colour=i) for i in range(100)])], Slow(), working=Path(sys.argv[1]))
"""


def test_sigkill_loses_no_finished_answer(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(SLOW_RUN), str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ})
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        files = list(tmp_path.rglob("*.jsonl"))
        if files and files[0].read_bytes().count(b"\n") >= 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (file,) = tmp_path.rglob("*.jsonl")
    finished = [json.loads(line)["index"] for line in file.read_text().splitlines()]
    assert 3 <= len(finished) < 100
    backend = ScriptedBackend()
    questions = [question(number, colour=number) for number in range(100)]
    run = ask([exam(questions)], backend, working=tmp_path)
    assert [index for index, _ in backend.asked] == [str(n) for n in range(len(finished), 100)]
    assert len(run.rows["digits"]) == 100
