"""Settings that every test shares, made before torch is first imported."""

import os
import signal

import pytest

# The same number of threads in this process and in those it starts: sums then round alike, and
# a training that was killed can be compared bit for bit with one that was not.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with Ctrl+C ignored, and so would be every process started here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Keep a file's tests in one process, for its fixtures' sake, and begin with the longest.

    The tests of the pipeline share one working tree, which takes a minute to make.
    """
    for item in items:
        folder = item.path.parent
        shared = folder.name == "pipeline" and item.path.name != "test_pages.py"
        item.add_marker(pytest.mark.xdist_group("pipeline" if shared else str(item.path)))
    items.sort(key=lambda item: item.path.parent.name not in {"pipeline", "faults"})
