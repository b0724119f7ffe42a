"""The page of an evaluation, as text; tests/pipeline looks at it in a browser."""

import re

import pytest

from ovis_model.evaluation.gallery import Exhibit, choose_rows, show_pictures
from ovis_model.evaluation.report import render_html
from ovis_model.evaluation.summary import Sources, summarise
from tests.support.browser import HOSTILE
from tests.support.evaluation_sources import picture_of, sources
from tests.support.predictions import row, run


def page_of(given, **descriptions):
    return render_html(summarise(given), given, pictures_of=picture_of, descriptions=descriptions)


@pytest.fixture(scope="module")
def page():
    return page_of(sources(), charts=HOSTILE)


def text_of(page, section):
    found = re.search(rf'<section id="{section}">(.*?)</section>', page, re.DOTALL)[1]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", found))


def test_what_comes_from_data_is_text_never_markup(page):
    assert page.count("<script") == 1
    assert "<img src=" not in page.replace('<img src="data:image/', "")
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_only_the_page_s_own_script_may_run_and_it_holds_no_data(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src &#39;none&#39;" in policy or "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    first = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    other = run(x=[row("1")])
    assert (
        re.search(r"<script>(.*?)</script>", page_of(Sources(other, other)), re.DOTALL)[1] == first
    )


def test_the_same_rows_give_the_same_page(page):
    assert page_of(sources(), charts=HOSTILE) == page


def test_a_published_number_stands_beside_ours_only_if_it_compares(page):
    scores = text_of(page, "scores")
    assert "not comparable: only the first items were asked" in scores
    assert "72.4" not in scores
    assert "60.0 % (ours +40.0 )" in scores or "60.0 % (ours +40.0)" in scores


def test_thinking_is_compared_on_the_same_rows_or_said_not_to_be(page):
    assert "Thinking minus not" in text_of(page, "thinking")
    one = run(x=[row("1")])
    assert "Not measured: the model was asked with one" in text_of(
        page_of(Sources(one, one)), "thinking"
    )


def test_sections_without_findings_say_so():
    one = run(x=[row("1")])
    page = page_of(Sources(one, one))
    assert "single run" in text_of(page, "seeds")
    assert "Not looked for." in text_of(page, "contamination")
    assert "The backend does not tell." in text_of(page, "speed")
    assert "name no property" in text_of(page, "slices")
    assert 'id="incomplete"' not in page


def test_an_error_is_an_alarm_on_the_page():
    failed = run(x=[row("1", 0.0, status="error", error="out of memory"), row("2")])
    page = page_of(Sources(failed, failed))
    assert 'id="incomplete"' in page
    assert "error: out of memory" in text_of(page, "predictions")


def test_noise_slices_contamination_and_speed_are_told(page):
    assert "(seed 2)" in text_of(page, "seeds")
    assert "bars 18" in text_of(page, "slices")
    assert "1,234" in text_of(page, "contamination")
    assert "2.55" in text_of(page, "speed")
    assert "bfloat16" in text_of(page, "fingerprint")


def test_a_long_thought_is_cut_and_says_so():
    long = run(x=[row("1", thinking="x" * 40_000)])
    assert "(20,000 more characters)" in page_of(Sources(long, long))


def exhibit(mine, other):
    return Exhibit(mine, {"base": other}, "base", (), 0)


def test_items_are_sorted_into_what_the_page_filters_by():
    right, wrong = row("1", 1.0), row("1", 0.0)
    assert exhibit(right, wrong).kinds == ["right", "gained"]
    assert exhibit(wrong, right).kinds == ["wrong", "lost"]
    assert exhibit(right, right).kinds == ["right"]
    assert exhibit(row("1", 0.0, status="unresolved"), wrong).kinds == ["wrong", "unresolved"]


def test_what_flipped_and_what_is_wrong_is_kept_when_there_is_no_room():
    mine = [row(str(n), float(n != 7)) for n in range(10)]
    rival = {one.key: one for one in [row(str(n), float(n not in {3, 7})) for n in range(10)]}
    assert [one.index for one in choose_rows(mine, rival, limit=3)] == ["0", "3", "7"]


def test_boxes_are_drawn_on_the_one_picture_they_can_mean():
    located = row("1", truth="<box>(0.1,0.2),(0.5,0.7)</box>", response="<point>(0.5,0.5)</point>")
    (picture,) = picture_of(located)
    (shown,), hidden = show_pictures([picture], located)
    assert (shown.width, shown.height, hidden) == (224, 168, 0)
    truth, answer = shown.marks
    assert (truth.whose, truth.x, truth.y, truth.width, truth.height) == (
        "truth",
        22.4,
        33.6,
        89.6,
        84.0,
    )
    assert (answer.whose, answer.x, answer.width) == ("answer", 112.0, 0)
    many, hidden = show_pictures([picture] * 10, located)
    assert ([one.marks for one in many], hidden) == ([()] * 8, 2)
