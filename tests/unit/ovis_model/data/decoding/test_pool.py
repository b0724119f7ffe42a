import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ovis_model.config import MediaLimits
from ovis_model.data.decoding import child
from ovis_model.data.decoding import pool as pool_module
from ovis_model.data.decoding.pool import DecoderPool, Reply, open_decoders
from ovis_model.errors import ConfigError, OvisError
from tests.support import decoder_tasks
from tests.support.decoder_tasks import TASKS

ROOT = Path(__file__).parents[5]
LIMITS = MediaLimits(decode_seconds=2, decode_memory_gb=0.5)


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(LIMITS, workers=2, tasks=TASKS) as started:
        yield started


def ask(pool: DecoderPool, *hows: str | None, **more: Any) -> list[Reply]:
    """Misbehave in each way, with a good file before and behind it."""
    requests = [{"path": f"{n}.png", "how": how, **more} for n, how in enumerate(hows)]
    return list(pool.run("misbehave", requests))


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody waited for yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pids: list[int], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, f"{pids} still run"
        time.sleep(0.02)


# ---- replies --------------------------------------------------------------------------------


def test_replies_come_in_the_order_of_the_requests_whoever_is_faster(pool: DecoderPool) -> None:
    requests = [{"path": str(n), "seconds": 0.1 if n % 7 == 0 else 0} for n in range(60)]
    replies = list(pool.run("echo", requests))
    assert [reply.value["path"] for reply in replies] == [str(n) for n in range(60)]
    assert len({reply.value["pid"] for reply in replies}) == 2


def test_children_serve_one_run_after_the_other(pool: DecoderPool) -> None:
    requests = [{"path": "a", "seconds": 0.05}] * 9
    first = {reply.value["pid"] for reply in pool.run("echo", requests)}
    assert len(first) == 2
    assert [r.value for r in ask(pool, None)] == [{"path": "0.png"}]  # another task
    second = {reply.value["pid"] for reply in pool.run("echo", requests)}
    assert first == second


def test_nothing_to_do_starts_nothing(pool: DecoderPool) -> None:
    assert list(pool.run("echo", [])) == []
    assert pool.children == []


@pytest.mark.parametrize(
    ("how", "problem", "detail"),
    [
        ("hang", "decoder_timeout", "1.png was not decoded within 2 s; convert it, or raise "),
        (
            "crash",
            "decoder_crash",
            "1.png was too much for its decoder, which was ended by SIGSEG",
        ),
        (
            "leave",
            "decoder_crash",
            "1.png was too much for its decoder, which ended with exit cod",
        ),
        ("fail_in_our_code", "decoder_crash", "(KeyError: 'nothing in here')"),
        ("eat_memory", "decoder_memory", "1.png needs more memory than decode_memory_gb allows"),
        ("be_killed", "decoder_memory", "which was ended by SIGKILL"),
        ("answer_too_much", "decoder_crash", "answer nonsense: an answer of more than 1,000,000"),
        ("talk_nonsense", "decoder_crash", "1.png made its decoder answer nonsense: Expecting"),
        ("talk_endlessly", "decoder_crash", "answer nonsense: an answer of more than 1,000,000"),
        ("refuse", "animated", "1.png is animated"),
        ("fail_to_read", "unreadable_media", "input/output error: '1.png'"),
        ("complain", "unreadable_media", "it is broken"),
    ],
)
def test_a_file_that_fails_is_named_and_its_neighbours_are_not(
    pool: DecoderPool, how: str, problem: str, detail: str
) -> None:
    before, reply, *behind = ask(pool, None, how, None, None, root="/data/raw")
    assert (reply.value, reply.problem) == (None, problem)
    assert detail in reply.detail
    assert "/data/raw" not in reply.detail
    values = [each.value for each in (before, *behind)]
    assert values == [{"path": "0.png"}, {"path": "2.png"}, {"path": "3.png"}]


@pytest.mark.parametrize("how", ["scribble", "read_standard_input"])
def test_what_libraries_print_and_read_does_not_matter(pool: DecoderPool, how: str) -> None:
    assert [r.value for r in ask(pool, how, None)] == [{"path": "0.png"}, {"path": "1.png"}]


def test_many_bad_files_cost_a_child_each_and_nothing_else(pool: DecoderPool) -> None:
    replies = ask(pool, *(["crash", None, "leave"] * 10))
    expected = ["decoder_crash", None, "decoder_crash"] * 10
    assert [reply.problem for reply in replies] == expected


def test_a_file_that_hangs_holds_up_no_other(pool: DecoderPool) -> None:
    seen = []

    def requests() -> Iterator[dict[str, Any]]:
        for n in range(3000):
            seen.append(n)
            yield {"path": str(n), "how": None if n else "hang"}

    replies = pool.run("misbehave", requests())
    assert next(replies).problem == "decoder_timeout"
    assert len(seen) == 3000
    assert all(reply.problem is None for reply in replies)


def test_requests_are_read_as_they_are_needed(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_WINDOW", 50)
    num_read = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal num_read
        while True:
            num_read += 1
            yield {"path": "a"}

    replies = pool.run("echo", endless())
    for num_given in range(1, 500):
        next(replies)
        assert num_read <= num_given + 50
    replies.close()
    assert pool.children == []  # what they were still doing is of no use


def test_a_slow_reader_is_not_taken_for_a_slow_decoder() -> None:
    limits = LIMITS.model_copy(update={"decode_seconds": 0.5})
    with DecoderPool(limits, workers=1, tasks=TASKS) as pool:
        replies = pool.run("echo", [{"path": str(n), "seconds": 0.1} for n in range(12)])
        assert next(replies).problem is None
        time.sleep(1.5)
        assert [reply.problem for reply in replies] == [None] * 11


def test_a_full_disk_is_no_fault_of_the_file(pool: DecoderPool) -> None:
    with pytest.raises(OvisError, match=r"decoding 1\.png: .*no space left on device"):
        ask(pool, None, "fill_the_disk")
    assert pool.children == []


def test_a_task_that_cannot_be_loaded_blames_no_file(pool: DecoderPool) -> None:
    with pytest.raises(ConfigError, match=r"does not start: .*absent cannot be loaded"):
        list(pool.run("absent", [{"path": "a"}]))


def test_a_child_without_the_memory_to_start_says_so() -> None:
    message = r"the decoding process does not start: .*raise decode_memory_gb"
    too_little = 2**-10 - child.BASE_BYTES / 2**30
    limits = LIMITS.model_copy(update={"decode_memory_gb": too_little})
    with (
        DecoderPool(limits, workers=1, tasks=TASKS) as pool,
        pytest.raises(ConfigError, match=message),
    ):
        list(pool.run("echo", [{"path": "a"}]))


def test_misuse_is_named(pool: DecoderPool) -> None:
    with pytest.raises(ValueError, match="no decoder task 'paint'; there are echo, misbehave"):
        pool.run("paint", [])
    first = pool.run("echo", [{"path": "a"}] * 10)
    next(first)
    with pytest.raises(ValueError, match="one run at a time"):
        next(pool.run("echo", [{"path": "b"}]))
    first.close()


# ---- what a child is ------------------------------------------------------------------------


def test_a_child_inherits_no_secrets(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_TOKEN", "secret")
    [reply] = ask(pool, "tell_environment")
    names = set(reply.value["path"].split())
    assert "REGISTRY_TOKEN" not in names
    assert {"PATH", "OMP_NUM_THREADS"} <= names


@pytest.mark.parametrize("module", ["decoding.child", "checks.inspection"])
def test_a_child_starts_without_heavy_libraries(module: str) -> None:
    program = (
        f"import sys, ovis_model.data.{module}\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'pydantic', 'av', 'moviepy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout == "[]\n"


def test_the_working_directory_is_no_place_to_import_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: DecoderPool
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('ran what lies among the data')")
    monkeypatch.chdir(tmp_path)
    assert [reply.value for reply in ask(pool, None)] == [{"path": "0.png"}]


def test_every_task_can_be_loaded() -> None:
    for name in pool_module.TASKS.values():
        task, answer = child._prepare(name)
        assert callable(task), answer


# ---- ends -----------------------------------------------------------------------------------


def test_a_pool_leaves_no_process_and_no_pipe() -> None:
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with DecoderPool(LIMITS, workers=2, tasks=TASKS) as pool:
        ask(pool, None, "crash", None, "leave", None)
        pids = [child.pid for child in pool.children]
        assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)  # waited for, too
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_program_that_a_hanging_child_started_ends_with_it(
    pool: DecoderPool, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    [reply] = ask(pool, "hang_and_note", note=str(note))
    assert reply.problem == "decoder_timeout"
    wait_until_gone([int(pid) for pid in note.read_text(encoding="utf-8").split()])


def test_children_outlive_the_thread_that_first_needed_them(pool: DecoderPool) -> None:
    thread = threading.Thread(target=ask, args=(pool, None))
    thread.start()
    thread.join()
    pids = [child.pid for child in pool.children]
    assert [reply.value for reply in ask(pool, None, None)] == [
        {"path": "0.png"},
        {"path": "1.png"},
    ]
    assert [child.pid for child in pool.children][: len(pids)] == pids


HANGING = """
from ovis_model.config import MediaLimits
from ovis_model.data.decoding.pool import DecoderPool
from tests.support.decoder_tasks import TASKS

with DecoderPool(MediaLimits(), workers=2, tasks=TASKS) as pool:
    requests = [{"path": "a", "how": "hang_and_note", "note": f"{n}.note"} for n in range(2)]
    for _ in pool.run("misbehave", requests):
        pass
"""


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", list[int]]]:
    """Start a program whose decoders hang, and tell their process ids."""
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 60
        while len(found := [p.read_text() for p in tmp_path.glob("*.note")]) < 2 or "" in found:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process, [int(pid) for text in found for pid in text.split()[:1]]
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_leaves_no_child(hanging: tuple["subprocess.Popen[bytes]", list[int]]) -> None:
    process, children = hanging
    assert all(map(is_alive, children))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT
    assert b"KeyboardInterrupt" in process.stderr.read()
    wait_until_gone(children)


def test_a_killed_parent_leaves_no_child(
    hanging: tuple["subprocess.Popen[bytes]", list[int]],
) -> None:
    process, children = hanging
    process.kill()
    process.wait()
    wait_until_gone(children)


# ---- without processes ----------------------------------------------------------------------


def test_open_decoders_gives_child_processes_unless_a_scheduler_is_named() -> None:
    with open_decoders(LIMITS, workers=3) as decoders:
        assert isinstance(decoders, DecoderPool)
        assert decoders.workers == 3


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        ("refuse", {"problem": "animated", "detail": "/r/a is animated"}),
        ("complain", {"problem": "unreadable_media", "detail": "it is broken"}),
        ("fill_the_disk", {"fatal": "[Errno 28] no space left on device"}),
        (None, {"value": {"path": "a"}}),
    ],
)
def test_an_answer_says_who_is_to_blame(how: str | None, answer: dict[str, Any]) -> None:
    request = {"path": "a", "root": "/r", "how": how}
    assert child.answer_to(decoder_tasks.misbehave, request) == answer


def test_slow_files_are_shared_out_one_by_one_though_fast_ones_came_before(
    pool: DecoderPool,
) -> None:
    fast = [{"path": f"{n}.jpg"} for n in range(500)]
    slow = [{"path": f"{n}.mp4", "seconds": 0.4} for n in range(4)]
    assert len(list(pool.run("echo", fast))) == 500
    pids = [reply.value["pid"] for reply in pool.run("echo", slow)]
    assert sorted(pids.count(pid) for pid in set(pids)) == [2, 2]
