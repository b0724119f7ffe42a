"""A real browser looks at the pages that validation writes: Data Docs and the data card.

The browser is headless Chromium, `apt-get install chromium`; without it these tests are skipped.
Names of other machines lead nowhere in it, and it keeps a log of what it asked for.
"""

import html
import re
from pathlib import Path

import pytest

from ovis_model.config import PixelLimits, ValidateConfig
from ovis_model.data.checks.lengths import LengthRules
from ovis_model.data.validation import Context, Results, validate
from tests.support.browser import HOSTILE, LEARNED, Browser, needs_browser
from tests.support.raw_data import sample, write_annotations, write_every_kind
from tests.support.tiny_model import TINY_FRAMES, TINY_PIXELS, build_tiny_checkpoint

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    return Browser(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """Validate one good sample of every kind, and hostile ones, good and bad."""
    folder = tmp_path_factory.mktemp("pages")
    samples = write_every_kind(folder / "raw")
    good = sample(f"good {HOSTILE}", f"<image>\n{HOSTILE}", f"{HOSTILE} 7", image="images/a.png")
    bad = [
        sample(f"../{HOSTILE}", "Why?", "Because."),
        sample("gone", "<image>\nWhat?", "7", image=f"{HOSTILE}.png"),
        {"id": "odd", "conversations": HOSTILE},
        sample("cut", "Why?", f"{HOSTILE}<|im_end|>"),
    ]
    write_annotations(folder / "raw", [*samples, good, *bad])
    rules = LengthRules(
        base_model=build_tiny_checkpoint(folder / "base"),
        pixel_limits=PixelLimits.model_validate(TINY_PIXELS.model_dump()),
        frame_sampling=TINY_FRAMES,
        multimodal_max_length=4096,
        text_max_length=4096,
    )
    config = ValidateConfig(raw_data="raw", max_bad_fraction=0.5, holdout_fraction=0.2, workers=1)
    results = Results(
        output=folder / "validated",
        report=folder / "reports/validate.json",
        ledger=folder / "reports/ledger.jsonl",
        data_docs=folder / "reports/data_docs",
        card=folder / "reports/data_card.html",
    )
    context = Context(sampling=TINY_FRAMES, lengths=rules)
    validate(config, raw_data=folder / "raw", results=results, context=context)
    return results


@pytest.fixture(scope="module")
def card(validated, browser):
    return browser.look_at(validated.card, height=6000)


# ---- the browser would notice ---------------------------------------------------------------


def test_a_page_that_does_not_escape_is_noticed(tmp_path, browser):
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><title>untouched</title><p>{HOSTILE}</p>", encoding="utf-8")
    seen = browser.look_at(page)
    assert seen.title == "owned"
    assert seen.asked_for == {"http://leak.invalid/a.png"}


# ---- the data card --------------------------------------------------------------------------


def test_the_card_shows_what_became_of_every_sample(card):
    shown = {
        name: re.search(rf'<dd id="num-{name}">([\d,]+)</dd>', card.dom)[1]
        for name in ("input", "ok", "quarantined", "dropped")
    }
    assert shown == {"input": "14", "ok": "10", "quarantined": "4", "dropped": "0"}
    assert "Every sample once: 14 = 10 ok + 4 quarantined + 0 dropped." in card.text
    for code in ("unsafe_id", "missing_media", "schema", "control_token"):
        assert code in card.text


def test_the_card_colours_what_is_learned(card, browser, validated):
    for kind in ("supervised", "read_only", "visual"):
        assert f'<span class="{kind}" title=' in card.dom
    assert "7<|im_end|>" in html.unescape(
        "".join(re.findall(r'<span class="supervised" title="[^"]*">([^<]*)</span>', card.dom))
    )
    assert card.count_pixels(LEARNED["light"]) > 500
    dark = browser.look_at(validated.card, "--blink-settings=preferredColorScheme=0", height=6000)
    assert dark.count_pixels(LEARNED["dark"]) > 500
    assert dark.count_pixels(LEARNED["light"]) == 0


def test_the_card_shows_pictures_of_every_kind_and_a_box(card):
    names = set(re.findall(r'<img [^>]*alt="([^"]*)"', card.dom))
    assert {"images/a.png", "videos/clip.mp4, 1 of 6"} <= names
    assert '<rect class="over"' in card.dom
    # The box around the corner of the last picture is drawn, in its own green.
    assert card.count_pixels((0x3B, 0xE4, 0x77)) > 50


def test_hostile_text_is_shown_on_the_card_and_does_nothing(card):
    assert card.title == "Data card"
    assert card.text.count(HOSTILE) >= 3
    assert "<script" not in card.dom
    assert card.asked_for == set()


def test_the_card_is_not_blank(card):
    assert len(card.picture.getcolors(1 << 24)) > 50


@pytest.mark.parametrize("width", [500, 820, 1400], ids=["phone", "tablet", "desk"])
def test_the_card_is_no_wider_than_the_window(validated, tmp_path, browser, width):
    # Its policy forbids scripts, so a copy without it measures itself.
    measure = (
        "<script>addEventListener('load', () => document.title = "
        "document.documentElement.scrollWidth + ' of ' + innerWidth)</script>"
    )
    text = validated.card.read_text(encoding="utf-8")
    page, found = re.subn(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", measure, text)
    assert found == 1
    (tmp_path / "card.html").write_text(page, encoding="utf-8")
    seen = browser.look_at(tmp_path / "card.html", width=width)
    needed, given = map(int, seen.title.split(" of "))
    assert needed <= given == width


# ---- Data Docs ------------------------------------------------------------------------------


def pages(validated):
    return sorted(validated.data_docs.rglob("*.html"))


def test_data_docs_say_what_was_expected_and_which_samples_fail(validated, browser):
    (results,) = (validated.data_docs / "validations/samples").rglob("*.html")
    seen = browser.look_at(results)
    assert seen.title == "Data Docs: samples"
    assert "The questions hold one <image> for every image of the sample." in seen.text
    assert "No id looks like a path out of a folder." in seen.text
    assert "1 unexpected values found." in seen.text
    assert len(seen.picture.getcolors(1 << 24)) > 50


def test_hostile_text_is_shown_in_data_docs_and_does_nothing(validated, browser):
    shown = 0
    for page in pages(validated):
        seen = browser.look_at(page)
        assert seen.title.startswith("Data Docs"), page
        assert seen.asked_for == set(), page
        shown += HOSTILE in seen.text
    assert shown


def test_every_page_of_data_docs_can_be_reached_from_its_home(validated, browser):
    home = validated.data_docs / "index.html"
    links = re.findall(r'<a href="([^"#]+)"', browser.look_at(home).dom)
    reached = {(home.parent / Path(link)).resolve() for link in links}
    assert reached == {page.resolve() for page in pages(validated) if page != home}
