"""Notices when anybody, in whatever process, opens a file of a folder.  Needs Linux."""

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

# linux/inotify.h
_IN_OPEN = 0x20
_IN_NONBLOCK = os.O_NONBLOCK
_HEADER = struct.Struct("iIII")


@contextlib.contextmanager
def opened_files(folder: Path) -> Iterator[list[str]]:
    """Collect the names of files right below `folder` that are opened meanwhile.

    Yields:
        A list that is filled when the context ends.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(_IN_NONBLOCK)
    watch = libc.inotify_add_watch(descriptor, os.fsencode(folder), _IN_OPEN)
    if min(descriptor, watch) < 0:
        raise OSError(ctypes.get_errno(), "inotify does not work here")
    names: list[str] = []
    try:
        yield names
        with contextlib.suppress(BlockingIOError):
            while events := os.read(descriptor, 2**16):
                names.extend(_names(events))
    finally:
        os.close(descriptor)


def _names(events: bytes) -> Iterator[str]:
    at = 0
    while at < len(events):
        length = _HEADER.unpack_from(events, at)[3]
        name = events[at + _HEADER.size : at + _HEADER.size + length].rstrip(b"\0")
        if name:  # none: the folder itself
            yield os.fsdecode(name)
        at += _HEADER.size + length
