"""Tasks that behave as badly as decoders do on hostile files; child processes load them."""

import ctypes
import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ovis_model.errors import DataError, MediaError

#: For `DecoderPool(tasks=...)`.
TASKS = {
    "echo": "tests.support.decoder_tasks:echo",
    "misbehave": "tests.support.decoder_tasks:misbehave",
    "absent": "tests.support.decoder_tasks:absent",
}


def echo(request: dict[str, Any]) -> dict[str, Any]:
    time.sleep(request.get("seconds", 0))
    return {"path": request["path"], "pid": os.getpid()}


def misbehave(request: dict[str, Any]) -> dict[str, Any]:
    """Do what the request's "how" says; nothing by default."""
    how = request.get("how")
    if how is not None:
        globals()[how](request)
    return {"path": request["path"]}


def hang(request: dict[str, Any]) -> None:
    time.sleep(3600)


def hang_and_note(request: dict[str, Any]) -> None:
    """Start a program, as moviepy starts ffmpeg, note both process ids, and hang."""
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    Path(request["note"]).write_text(f"{os.getpid()} {program.pid}", encoding="utf-8")
    time.sleep(3600)


def crash(request: dict[str, Any]) -> None:
    ctypes.string_at(0)


def leave(request: dict[str, Any]) -> None:
    os._exit(7)


def fail_in_our_code(request: dict[str, Any]) -> None:
    raise KeyError(f"nothing in {request.get('root')}/here")


def eat_memory(request: dict[str, Any]) -> None:
    bytearray(8 << 30)


def be_killed(request: dict[str, Any]) -> None:
    os.kill(os.getpid(), 9)


def answer_too_much(request: dict[str, Any]) -> None:
    request["path"] += "x" * 1_100_000


def scribble(request: dict[str, Any]) -> None:
    """Print, as libraries do."""
    os.write(1, b"scribbled on stdout\n")
    os.write(2, b"scribbled on stderr\n" * 10_000)


def talk_nonsense(request: dict[str, Any]) -> None:
    """Write to whatever is open, as a decoder does that was taken over."""
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b"{nonsense}\n")
        except OSError:
            continue
    time.sleep(3600)


def talk_endlessly(request: dict[str, Any]) -> None:
    for descriptor in range(3, 20):
        try:
            while True:
                os.write(descriptor, b"x" * 65536)
        except OSError:
            continue


def refuse(request: dict[str, Any]) -> None:
    raise MediaError("animated", f"{request['root']}/{request['path']} is animated")


def fail_to_read(request: dict[str, Any]) -> None:
    raise OSError(errno.EIO, "input/output error", f"{request['root']}/{request['path']}")


def complain(request: dict[str, Any]) -> None:
    raise DataError("it is broken")


def fill_the_disk(request: dict[str, Any]) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


def read_standard_input(request: dict[str, Any]) -> None:
    assert os.read(0, 100) == b""


def tell_environment(request: dict[str, Any]) -> None:
    request["path"] = " ".join(sorted(os.environ))
