"""One child process that decodes files: starting it, talking to it, ending it.

Nothing here waits: pipes are read and written as far as they allow, so that one thread can
serve many children (`ovis_model.data.decoding.pool`).
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_PACKAGE_ROOT = Path(__file__).parents[3]
_READ_BYTES = 1 << 16
#: A longer answer is no answer: what comes from a child is not trusted either.
MAX_REPLY_BYTES = 1_000_000
#: The end of what a child says on stderr, kept for messages.
_TAIL_BYTES = 4096
#: From the end of a child's answers to its own end.
_EXIT_SECONDS = 2.0
#: All that a child inherits of the environment: where programs and languages are, no secrets.
_ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONDONTWRITEBYTECODE",
    "TMPDIR",
    "FFMPEG_BINARY",
    "IMAGEIO_FFMPEG_EXE",
)
#: Many children work side by side; each with one thread, and one arena of memory.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
#: What dying programs print when they were refused memory.
_OUT_OF_MEMORY = ("bad_alloc", "Cannot allocate memory", "MemoryError", "out of memory")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one request; either `value` or `problem` is set.

    Attributes:
        value: What the task returned.
        problem: Reason code why the file cannot be used.
        detail: That problem in words, without the request's root folder.
    """

    value: dict[str, Any] | None
    problem: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """A request on its way to a child.

    Attributes:
        index: Its place among the requests of the run.
        line: The request as it is sent.
        subject: What messages call the file.
        kind: The ending of its name, which tells roughly how long it takes.
        root: Folder that messages must not tell.
    """

    index: int
    line: bytes
    subject: str
    kind: str
    root: str | None

    @classmethod
    def of(cls, index: int, request: Mapping[str, Any]) -> "Work":
        """Take in a request."""
        line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        subject = str(request.get("path", "the file"))
        kind = os.path.splitext(subject)[1].lower()  # noqa: PTH122 - a Path takes ten times as long
        return cls(index, line, subject, kind, request.get("root"))

    def without_root(self, text: str) -> str:
        """Take the folder out of a message: reports must not depend on where data lies."""
        return text.replace(f"{self.root}{os.sep}", "") if self.root else text


class DecoderProcess:
    """One child, in a session and process group of its own.

    Attributes:
        queue: What it was given and has not answered; it works on the first.
        ready: Whether it has loaded its task.
        ended: Whether it will say no more.
        since: When it began with the first of its queue, or with loading its task, in seconds
            of `time.monotonic`; at the latest.
    """

    def __init__(self, selector: selectors.BaseSelector, *, memory_bytes: int) -> None:
        inherited = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        path = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), inherited.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            # -P: the working directory, which may hold data, is no place to import from.
            [sys.executable, "-P", "-m", "ovis_model.data.decoding.child", str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env={**inherited, **_ONE_THREAD, "PYTHONPATH": path},
        )
        self.queue: deque[Work] = deque()
        self.ready = False
        self.ended = False
        self.since = time.monotonic()
        self._task: str | None = None
        self._selector = selector
        self._outgoing = bytearray()
        self._incoming = bytearray()
        self._tail = b""
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)
        for pipe in self._pipes[1:]:
            selector.register(pipe, selectors.EVENT_READ)

    @property
    def _pipes(self) -> "tuple[IO[bytes], IO[bytes], IO[bytes]]":
        process = self._process
        assert process.stdin
        assert process.stdout
        assert process.stderr
        return process.stdin, process.stdout, process.stderr

    @property
    def pid(self) -> int:
        """Its process id, which also is that of its group."""
        return self._process.pid

    def prepare(self, task: str) -> None:
        """Have it load a task, "module:function", unless it has."""
        if task != self._task:
            self._task, self.ready = task, False
            self.since = time.monotonic()
            self._outgoing += json.dumps(task).encode() + b"\n"

    def give(self, work: Work) -> None:
        """Put work at the end of its queue."""
        if not self.queue and self.ready:
            self.since = time.monotonic()
        self.queue.append(work)
        self._outgoing += work.line

    def send(self) -> None:
        """Write as much as its pipe takes; the selector tells when it takes more."""
        pipe = self._pipes[0]
        try:
            if self._outgoing:
                del self._outgoing[: os.write(pipe.fileno(), self._outgoing)]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # it died; the end of its answers says so too
            self._outgoing.clear()
        waits = pipe in self._selector.get_map()
        if self._outgoing and not waits:
            self._selector.register(pipe, selectors.EVENT_WRITE)
        elif waits and not self._outgoing:
            self._selector.unregister(pipe)

    def receive(self) -> list[bytes]:
        """Read what it has answered, in whole lines, and what it says on stderr.

        Raises:
            ValueError: If a line is longer than `MAX_REPLY_BYTES`.
        """
        said, is_over = _read(self._pipes[2])
        self._tail = (self._tail + said)[-_TAIL_BYTES:]
        if is_over and self._pipes[2] in self._selector.get_map():
            self._selector.unregister(self._pipes[2])
        answered, self.ended = _read(self._pipes[1])
        if not answered:
            return []
        lines = bytes(self._incoming + answered).split(b"\n")
        self._incoming = bytearray(lines.pop())
        if max(len(self._incoming), *map(len, lines), 0) > MAX_REPLY_BYTES:
            raise ValueError(f"an answer of more than {MAX_REPLY_BYTES:,} bytes")
        return lines

    def cause_of_death(self) -> tuple[str, str]:
        """Wait for a child that has ended, or let go of its pipes, and say why.

        Returns:
            A reason code, "decoder_crash" or "decoder_memory", and a few words.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)
        with suppress(ValueError):
            self.receive()
        code, words = self._process.poll(), self.last_words
        if code == -signal.SIGKILL or any(sign in words for sign in _OUT_OF_MEMORY):
            return "decoder_memory", _describe(code)
        return "decoder_crash", _describe(code) + (f" ({words})" if words else "")

    @property
    def last_words(self) -> str:
        """The last line it wrote to stderr, shortened."""
        lines = self._tail.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:200]

    def end(self) -> None:
        """End it and every process it started, and free what it held here."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for pipe in self._pipes:
            if pipe in self._selector.get_map():
                self._selector.unregister(pipe)
            pipe.close()
        self._process.wait()


def _describe(code: int | None) -> str:
    if code is None:
        return "closed its pipes"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _read(pipe: IO[bytes]) -> tuple[bytes, bool]:
    """Read what is there, up to a few large answers, and whether that was the end."""
    found = bytearray()
    with suppress(BlockingIOError):
        while len(found) <= 2 * MAX_REPLY_BYTES:
            piece = os.read(pipe.fileno(), _READ_BYTES)
            if not piece:
                return bytes(found), True
            found += piece
    return bytes(found), False
