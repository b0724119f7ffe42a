"""Which process it was: numbers are given out again, also after a restart of the machine."""

import os
import socket
from pathlib import Path


def process_identity(pid: int | None = None) -> str | None:
    """Name a process so that no other one, at any time, has the same name here.

    Returns:
        Host, boot, number and start time (in ticks since the boot); None if there is none.
    """
    number = os.getpid() if pid is None else pid
    try:
        stat = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # After the name, which may hold spaces, come state (field 3) and the rest.
    state, *rest = stat.rpartition(")")[2].split()
    if state == "Z":  # dead, and nobody has asked how it ended
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{socket.gethostname()} {boot} {number} {rest[18]}"


def has_ended(identity: str) -> bool:
    """Say whether a process that ran on this machine is gone; of other machines nothing is known.

    Example:
        >>> has_ended(process_identity()), has_ended("another-machine 1 2 3")
        (False, False)
    """
    host, _, number, _ = identity.split(" ")
    return host == socket.gethostname() and process_identity(int(number)) != identity
