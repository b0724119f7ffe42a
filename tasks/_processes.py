"""Child processes that never outlive us: the only place that starts one and ends a group.

A child gets its own session, so that ending its group does not end us; the kernel ends it when
we are gone (PR_SET_PDEATHSIG), also after `kill -9`; and its group is ended when we stop for
any other reason.  `python -m tasks._processes SIGNAL COMMAND...` is the first half: it asks
the kernel, then becomes the command.
"""

import ctypes
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import FrameType

from ovis_model.errors import StageError
from tasks.masking import masked

PR_SET_PDEATHSIG = 1
READ_BYTES = 1 << 16
POLL_SECONDS = 0.2
#: From SIGTERM to SIGKILL.
GRACE_SECONDS = 20.0
TAIL_LINES = 20
TAIL_BYTES = 1 << 14


def tied(command: list[str], *, on_death: signal.Signals = signal.SIGTERM) -> list[str]:
    """Prefix a command so that it receives `on_death` when its parent is gone.

    Not `preexec_fn`: that runs Python between fork and exec, which can deadlock in a process
    with threads, and Prefect has threads.
    """
    return [sys.executable, "-m", "tasks._processes", on_death.name, *command]


def die_with_parent(on_death: signal.Signals) -> None:
    """Ask the kernel to signal this process when its parent ends; a new command keeps it."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(on_death), 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), on_death)


def stop_cleanly_on_signals() -> None:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl+C does, so that `finally` blocks run."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    # DVC ignores SIGINT while its stage runs, and a child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(  # noqa: PLR0913 - all by name
    command: list[str],
    *,
    on_output: Callable[[bytes], None],
    on_tick: Callable[[], None] | None = None,
    env: Mapping[str, str] | None = None,
    keep_open: Collection[int] = (),
    grace_seconds: float = GRACE_SECONDS,
    limit_seconds: float = math.inf,
) -> None:
    """Run a command to its end, handing on its output as it comes.

    Args:
        command: Program and arguments; no shell.
        on_output: Receives stdout and stderr, mixed, in pieces of any length.
        on_tick: Called several times a second, and once after the last output.
        env: The whole environment; None keeps ours.
        keep_open: File descriptors the command inherits.
        grace_seconds: How long it may take to end when it is asked to.
        limit_seconds: How long it may take at all.

    Raises:
        StageError: If it exits with anything but 0, or is ended because it takes too long; the
            message holds its last lines.
    """
    tail: deque[bytes] = deque()
    deadline = time.monotonic() + limit_seconds
    with subprocess.Popen(
        tied(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=env,
        pass_fds=tuple(keep_open),
    ) as process:
        try:
            for piece in _output(process):
                if piece:
                    on_output(piece)
                    keep_end(tail, piece)
                if on_tick:
                    on_tick()
                if time.monotonic() > deadline:
                    raise StageError(
                        f"`{' '.join(command)}` did not end within {limit_seconds / 3600:g} hours "
                        f"and was stopped. Its last lines:\n{last_lines(tail)}"
                    )
            code = process.wait()
        finally:
            end_group(process, grace_seconds)
    if on_tick:
        on_tick()
    if code != 0:
        raise StageError(
            f"`{' '.join(command)}` {describe_exit(code)}. Its last lines:\n{last_lines(tail)}"
        )


def _output(process: "subprocess.Popen[bytes]") -> Iterator[bytes]:
    """Yield output as it comes, and b"" now and then while there is none."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if selector.select(POLL_SECONDS):
                piece = os.read(process.stdout.fileno(), READ_BYTES)
                if not piece:
                    return
                yield piece
            elif process.poll() is not None:
                return  # a grandchild may hold the pipe open for ever
            else:
                yield b""


def keep_end(tail: deque[bytes], piece: bytes) -> None:
    """Add output to a tail that stays short."""
    tail.append(piece)
    while len(tail) > 1 and sum(map(len, tail)) - len(tail[0]) > TAIL_BYTES:
        tail.popleft()


def last_lines(pieces: Collection[bytes]) -> str:
    r"""Return the last lines of output, masked; of a progress bar only its last state.

    Example:
        >>> last_lines([b"one\n 1%\r 2%", b"\r99%\ntwo\n"])
        'one\n99%\ntwo'
    """
    text = b"".join(pieces).decode(errors="replace").replace("\r\n", "\n")
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.rstrip("\n").split("\n")]
    return masked("\n".join(lines[-TAIL_LINES:]))


def describe_exit(code: int) -> str:
    """Say how a process ended.

    Example:
        >>> describe_exit(3), describe_exit(-9)
        ('ended with exit code 3', 'was ended by SIGKILL')
    """
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def end_group(process: "subprocess.Popen[bytes]", grace_seconds: float = GRACE_SECONDS) -> None:
    """End a child and everything left in its group: asked first, then made to."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + grace_seconds
        while _group_is_alive(process) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS / 4)


def _group_is_alive(process: "subprocess.Popen[bytes]") -> bool:
    """Look in /proc: `killpg(pid, 0)` also counts the dead whom nobody waits for."""
    process.poll()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may hold spaces: state, parent, group.
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(group) == process.pid and state != "Z":
            return True
    return False


if __name__ == "__main__":
    die_with_parent(signal.Signals[sys.argv[1]])
    os.execvp(sys.argv[2], sys.argv[2:])
