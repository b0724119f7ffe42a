"""The process in which strangers' files are decoded: limited, replaceable, and trusted little.

`ovis_model.data.decoding.pool` starts it.  It reads one JSON object per line and answers each with
one line, at once and in order, so that its parent always knows which file it is at.  It may use
so much memory and no more, and ends with its parent.
"""

import ctypes
import errno
import importlib
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ovis_model.errors import DataError, MediaError

Task = Callable[[dict[str, Any]], dict[str, Any]]

#: Address space of Python and every library a task loads (numpy, PyAV, Pillow, moviepy and
#: pydantic take 0.23 GiB), which is not counted against a file.
BASE_BYTES = 1 << 29
_PR_SET_PDEATHSIG = 1
#: The machine is in trouble, not the file.
_NOT_THE_FILES_FAULT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)


def main(arguments: list[str]) -> None:
    """Serve until the parent closes its pipe.

    Args:
        arguments: The bytes of address space that a file may take.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's business
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, int(arguments[0]) + BASE_BYTES)
    warnings.simplefilter("ignore")
    # What libraries print must not get between the answers, nor ffmpeg read the requests.
    requests, replies = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    os.close(nowhere)
    _serve(requests, replies)


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))


def _serve(requests: int, replies: int) -> None:
    task: Task | None = None
    with open(requests, "rb") as lines, open(replies, "wb", buffering=0) as answers:
        for line in lines:
            message = json.loads(line)
            if isinstance(message, str):
                task, answer = _prepare(message)
            else:
                answer = answer_to(task, message) if task else {"fatal": "no task was named"}
            left = memoryview(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
            while left:
                left = left[answers.write(left) :]


def _prepare(name: str) -> tuple[Task | None, dict[str, Any]]:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function), {"ready": name}
    except (ImportError, AttributeError, MemoryError) as error:
        return None, {"fatal": f"{name} cannot be loaded: {error or type(error).__name__}"}


def answer_to(task: Task, request: Mapping[str, Any]) -> dict[str, Any]:
    """Do one task and say what came of it.

    Returns:
        {"value": ...}; or {"problem": code, "detail": words} if the file is to blame; or
        {"fatal": words} if this machine is.
    """
    try:
        return {"value": task(dict(request))}
    except MediaError as error:
        return {"problem": error.code, "detail": str(error)}
    except MemoryError:
        return {"problem": "decoder_memory"}
    except OSError as error:
        if error.errno in _NOT_THE_FILES_FAULT:
            return {"fatal": str(error)}
        code = "decoder_memory" if error.errno == errno.ENOMEM else "unreadable_media"
        return {"problem": code, "detail": str(error)}
    except DataError as error:
        return {"problem": "unreadable_media", "detail": str(error)}


if __name__ == "__main__":
    main(sys.argv[1:])
