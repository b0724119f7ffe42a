import pytest

from ovis_model.progress import Progress, WatchedBar


@pytest.fixture
def seen(monkeypatch):
    found = []
    monkeypatch.setattr(WatchedBar, "watcher", found.append)
    return found


def test_a_bar_tells_its_watcher_how_far_it_is_also_before_it_is_drawn(seen):
    with WatchedBar(total=3, desc="inspect", unit="file", delay=60) as bar:
        bar.update()
        bar.update(2)
    assert seen == [Progress("inspect", 1, 3, "file"), Progress("inspect", 3, 3, "file")]
    assert str(seen[-1]) == "inspect, file 3 of 3"


def test_a_bar_that_nobody_watches_is_a_bar():
    assert list(WatchedBar(range(3), delay=60)) == [0, 1, 2]


def test_what_has_no_end_or_no_name_is_told_without():
    assert str(Progress("read", 1200, None, "sample")) == "read, sample 1,200"
    assert str(Progress("", 5, 6, "step")) == "step 5 of 6"
