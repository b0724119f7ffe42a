"""The page shows every feature, loads nothing, and takes what comes from data for text."""

import re

import pytest

from ovis_model.drift.comparison import compare
from ovis_model.drift.page import draw, write_page
from ovis_model.drift.rules import DriftRules
from tests.support.browser import HOSTILE
from tests.support.drifting import draw_profile


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    reference = draw_profile(folder, 150, seed=0)
    new = draw_profile(folder, 150, seed=1, brighter=90)
    source = new.categories["source"].model_copy(update={"labels": [HOSTILE]})
    hostile = new.model_copy(update={"categories": {**new.categories, "source": source}})
    return compare(reference, hostile, DriftRules(), reference_name=HOSTILE)


def test_the_page_shows_every_feature_and_the_verdict(tmp_path, report):
    write_page(tmp_path / "drift.html", report)
    page = (tmp_path / "drift.html").read_text(encoding="utf-8")
    assert page.count("<svg") == len(report.features) == 21
    assert re.search(r'class="verdict bad">Drift: .*brightness', page)


def test_what_comes_from_data_is_text(tmp_path, report):
    write_page(tmp_path / "drift.html", report)
    page = (tmp_path / "drift.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<img" not in page
    assert "default-src 'none'" in page


def test_bars_stay_inside_the_plot(report):
    for feature in report.features:
        plot = draw(feature)
        assert all(0 <= bar.x <= bar.x + bar.width <= 321 for bar in plot.bars)
        assert all(bar.y >= 0 and bar.y + bar.height <= plot.height + 0.1 for bar in plot.bars)


def test_too_few_samples_are_said_to_be(tmp_path, report):
    few = report.model_copy(update={"outcome": "too few samples", "unreadable_new": 3})
    write_page(tmp_path / "drift.html", few)
    page = (tmp_path / "drift.html").read_text(encoding="utf-8")
    assert "Each side needs 100 independent samples" in page
    assert "3 new samples could not be read" in page
