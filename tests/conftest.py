"""Settings that every test shares, made before torch is first imported."""

import os
import signal

# The same number of threads in this process and in those it starts: sums then round alike, and
# a training that was killed can be compared bit for bit with one that was not.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with Ctrl+C ignored, and so would be every process started here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Begin with what takes longest, so that no process ends long after the other."""
    items.sort(key=lambda item: item.path.parent.name not in {"pipeline", "faults"})
