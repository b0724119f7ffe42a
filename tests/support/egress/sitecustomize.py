"""Loaded by every Python process that has this folder on PYTHONPATH: nobody leaves this machine.

A connection or a name lookup that is not local is written down and refused.
"""

import os
import socket
import sys

LOCAL_NAMES = {None, "", "localhost", "0.0.0.0", "::", "::1", socket.gethostname()}
LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
LOG = os.environ.get("EGRESS_LOG")


def _is_local(host):
    if isinstance(host, bytes):
        host = host.decode()
    return host in LOCAL_NAMES or str(host).startswith("127.")


def _watch(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(address[0]):
            _refuse(event, address)
    elif event in LOOKUPS and not _is_local(arguments[0]):
        _refuse(event, arguments[0])


def _refuse(event, target):
    with open(LOG, "a") as log:  # noqa: PTH123 - loaded before anything else
        log.write(f"{event} {target!r} by {' '.join(sys.orig_argv)}\n")
    raise OSError(f"a test allows no connection beyond this machine: {event} {target!r}")


if LOG:
    sys.addaudithook(_watch)
