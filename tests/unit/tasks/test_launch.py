"""torchrun is started on loopback, its metrics are followed, its output has one writer."""

import json
import os
import subprocess
import sys

import pytest

from ovis_model.errors import StageError, StageStopped
from tasks import _launch
from tasks._launch import Screen, Tail, environment, exclusive, free_port, torchrun


def test_each_line_of_the_metrics_log_is_handed_on_once_and_when_complete(tmp_path):
    path, records = tmp_path / "metrics.jsonl", []
    tail = Tail(path, records.append)
    tail.poll()  # not there yet
    with path.open("w") as file:
        file.write('{"step": 1}\n{"st')
        file.flush()
        tail.poll()
        assert records == [{"step": 1}]
        file.write('ep": 2}\n')
        file.flush()
        tail.poll()
        tail.poll()
    assert records == [{"step": 1}, {"step": 2}]


def test_threads_share_the_cores_and_what_the_user_set_wins(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert environment(1)["OMP_NUM_THREADS"] == str(cores)
    assert environment(cores * 8)["OMP_NUM_THREADS"] == "1"
    assert environment(1)["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment(1)["OMP_NUM_THREADS"] == "3"


def test_torchrun_meets_on_loopback_and_gets_the_job_as_its_only_argument(tmp_path):
    command = torchrun(tmp_path / "job.json", nproc_per_node=2)
    assert command[command.index("--master-addr") + 1] == "127.0.0.1"
    assert command[command.index("--nproc-per-node") + 1] == "2"
    assert command[-3:] == ["-m", "ovis_model.training", str(tmp_path / "job.json")]


def test_a_free_port_can_be_bound():
    assert 1024 <= free_port() <= 65535


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path):
    path = tmp_path / "train.lock"
    code = (
        "import sys; from pathlib import Path; from tasks._launch import exclusive\n"
        f"with exclusive(Path({str(path)!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(StageError, match=f"held by process {holder.pid} .*another training"),
            exclusive(path, wait_seconds=0.3),
        ):
            pass
        holder.stdin.close()
    with exclusive(path, wait_seconds=0.3):
        pass


def test_a_lock_inherited_by_a_child_is_held_until_the_child_ends(tmp_path):
    """A trainer that was orphaned may still write, so nobody else may."""
    path = tmp_path / "train.lock"
    with exclusive(path) as descriptor:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=(descriptor,),
        )
    with child:
        with pytest.raises(StageError, match="is held by"), exclusive(path, wait_seconds=0.3):
            pass
        child.stdin.close()
    with exclusive(path, wait_seconds=0.3):
        pass


def start_program_instead(monkeypatch, program):
    """Let the real torchrun start a short program of the test."""
    original = _launch.torchrun

    def torchrun_program(job, **options):
        command = original(job, **options)
        return [*command[:-3], str(program), str(job)]

    monkeypatch.setattr(_launch, "torchrun", torchrun_program)


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        pytest.param("raise SystemExit(2)", "ended with exit code 2", id="an exit code"),
        pytest.param("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL", id="a signal"),
    ],
)
def test_a_failed_training_is_told_in_its_own_words(tmp_path, monkeypatch, capfd, ending, how):
    program = tmp_path / "program.py"
    program.write_text(f"print('error: the reason', flush=True)\n{ending}\n", encoding="utf-8")
    start_program_instead(monkeypatch, program)
    with pytest.raises(StageError) as caught:
        _launch.run_training(
            tmp_path / "job.json",
            nproc_per_node=1,
            metrics_log=tmp_path / "metrics.jsonl",
            on_metrics=print,
            lock=tmp_path / "lock",
        )
    who = "process 0 of the training"
    assert str(caught.value) == f"{who} {how}. Its last lines:\nerror: the reason"
    assert "Traceback" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("ending", "by"),
    [
        pytest.param("raise SystemExit(75)", "", id="a process"),
        pytest.param("os.kill(os.getppid(), 15); time.sleep(60)", " by SIGTERM", id="torchrun"),
    ],
)
def test_a_training_that_was_stopped_asks_to_be_run_again(tmp_path, monkeypatch, ending, by):
    program = tmp_path / "program.py"
    program.write_text(f"import os, time\n{ending}\n", encoding="utf-8")
    start_program_instead(monkeypatch, program)
    with pytest.raises(StageStopped) as caught:
        _launch.run_training(
            tmp_path / "job.json",
            nproc_per_node=1,
            metrics_log=tmp_path / "metrics.jsonl",
            on_metrics=print,
            lock=tmp_path / "lock",
        )
    expected = f"training was stopped{by}; run it again, and it goes on from its last checkpoint"
    assert str(caught.value) == expected


def test_what_training_shows_is_masked_wherever_its_pieces_are_cut(monkeypatch, capfdbinary):
    monkeypatch.setenv("DEMO_TOKEN", "sw0rdfish")
    screen = Screen()
    for piece in (b"no sw0r", b"dfish \xff\n 1% of sw0rd", b"fish\r 2%", b" of sw0rdfish"):
        screen.show(piece)
    screen.finish()
    assert capfdbinary.readouterr().out == b"no *** \xff\n 1% of ***\r 2% of ***"


def test_training_in_two_processes_reports_metrics_while_it_runs(tmp_path, monkeypatch, capfd):
    """The real torchrun; only the program it starts is a short one of this test."""
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os, sys\n"
        "job = json.load(open(sys.argv[1]))\n"
        # In one piece, or the two would mix where PYTHONUNBUFFERED is set.
        "print(f\"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}\", flush=True)\n"
        "if os.environ['RANK'] == '0':\n"
        "    with open(job['metrics_log'], 'a') as log:\n"
        "        for step in (1, 2): log.write(json.dumps({'step': step, 'loss': 0.5}) + '\\n')\n",
        encoding="utf-8",
    )
    start_program_instead(monkeypatch, program)
    job, metrics = tmp_path / "job.json", tmp_path / "metrics.jsonl"
    job.write_text(json.dumps({"metrics_log": str(metrics)}))
    records = []
    _launch.run_training(
        job,
        nproc_per_node=2,
        metrics_log=metrics,
        on_metrics=records.append,
        lock=tmp_path / "lock",
    )
    assert records == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}]
    shown = capfd.readouterr().out
    assert "rank 0 of 2" in shown
    assert "rank 1 of 2" in shown
