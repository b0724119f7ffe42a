"""A real browser looks at the page of an evaluation: Chromium, as in test_pages."""

import re

import pytest

from ovis_model.evaluation.report import render_html
from ovis_model.evaluation.summary import summarise
from tests.support.browser import HOSTILE, Browser, needs_browser
from tests.support.evaluation_sources import picture_of, sources

pytestmark = needs_browser
#: Colours that boxes are drawn in: what is true, and what the model answered.
TRUTH, ANSWER = (0x3B, 0xE4, 0x77), (0xFF, 0x8A, 0x3D)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    return Browser(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    given = sources()
    path = tmp_path_factory.mktemp("page") / "evaluate.html"
    html = render_html(
        summarise(given), given, pictures_of=picture_of, descriptions={"charts": HOSTILE}
    )
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def seen(page, browser):
    return browser.look_at(page, height=14000)


def items_shown(dom):
    """Return the headings of the items that no filter hides."""
    articles = re.findall(r"<article ([^>]*)>\s*<h3><bdi>(.*?)</bdi>", dom, re.DOTALL)
    assert articles
    return [name for attributes, name in articles if "hidden" not in attributes]


def test_hostile_text_is_shown_and_does_nothing(seen):
    assert seen.title == "Ovis2.5 evaluation"
    assert seen.text.count(HOSTILE) > 20
    assert seen.asked_for == set()


def test_the_page_shows_pictures_with_both_boxes(seen):
    assert seen.count_pixels(TRUTH) > 300
    assert seen.count_pixels(ANSWER) > 300


def test_the_pages_own_script_runs_and_shows_every_item(seen):
    assert len(items_shown(seen.dom)) == 39
    assert re.search(r'<output id="shown">39</output>', seen.dom)


@pytest.mark.parametrize(
    ("fragment", "count"),
    [
        ("#only=wrong&benchmark=charts", 14),
        ("#only=lost", 2),
        ("#search=C05", 3),
    ],
)
def test_a_link_shows_some_of_the_items(page, browser, fragment, count):
    seen = browser.look_at(page, fragment=fragment)
    assert len(items_shown(seen.dom)) == count
    assert re.search(rf'<output id="shown">{count}</output>', seen.dom)


@pytest.mark.parametrize("width", [500, 1400], ids=["phone", "desk"])
def test_the_page_is_no_wider_than_the_window(page, tmp_path, browser, width):
    # Its policy forbids other scripts, so a copy without it measures itself.
    measure = (
        "<script>addEventListener('load', () => document.title = "
        "document.documentElement.scrollWidth + ' of ' + innerWidth)</script>"
    )
    text = page.read_text(encoding="utf-8")
    copy, found = re.subn(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", measure, text)
    assert found == 1
    (tmp_path / "page.html").write_text(copy.replace(HOSTILE, ""), encoding="utf-8")
    seen = browser.look_at(tmp_path / "page.html", width=width)
    needed, given = map(int, seen.title.split(" of "))
    assert needed <= given == width
