"""The data card: numbers, pictures and label masks in one page, and the numbers as JSON."""

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from ovis_model.data.checks.card import (
    MAX_PICTURES,
    CardSample,
    CardSummary,
    Finding,
    write_card,
    write_sample_page,
)
from ovis_model.data.checks.label_mask import Piece, mask_of
from ovis_model.data.checks.pages import MAX_SAMPLES, choose_samples
from ovis_model.data.checks.statistics import Histogram, Lengths, Statistics, describe
from ovis_model.data.reasons import REASONS
from ovis_model.data.schema import parse_sample
from tests.support.raw_data import sample, write_every_kind, write_picture
from tests.support.tiny_model import build_tokenizer

HOSTILE = "<script>alert(1)</script>\"'<img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}"


class Page(HTMLParser):
    """Tags with their attributes, and the text that a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag, class_=None):
        found = [attributes for name, attributes in self.tags if name == tag]
        return [a for a in found if class_ is None or a.get("class") == class_]


def summary_of(samples, **changes):
    numbers = {
        "num_input": len(samples) + 3,
        "num_ok": len(samples),
        "num_quarantined": 2,
        "dropped": {"over_length: drop": 1},
        "num_train": len(samples),
        "num_holdout": 0,
        "statistics": describe(samples, lengths=Lengths([7] * len(samples), [2] * len(samples))),
        "findings": [Finding("missing_media", "quarantine", 2, ("x", "y"))],
    }
    return CardSummary(**{**numbers, **changes})


def render(path, values, root, **changes):
    samples = [parse_sample(value) for value in values]
    shown = [CardSample(found, "train", root) for found in samples[:MAX_SAMPLES]]
    write_card(path, samples=shown, summary=summary_of(samples, **changes))
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def card(tmp_path):
    return tmp_path / "reports/data_card.html"


def picture_of(address):
    head, content = address.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_every_kind_of_sample_is_shown_with_its_pictures(tmp_path, card):
    page = render(card, write_every_kind(tmp_path / "raw"), tmp_path / "raw")
    names = [image["alt"] for image in page.all("img")]
    assert names[:4] == ["images/a.png", "images/b.png", "images/c.png", "images/d.png"]
    assert names[4:10] == [f"videos/clip.mp4, {number} of 6" for number in range(1, 7)]
    assert names[10:] == ["images/a.png", "images/c.png", "images/e.png", "images/e.png"]
    for name in ("single", "clip", "grounding", "system"):
        assert name in page.text
    shades = [picture_of(i["src"]).convert("L").getpixel((80, 80)) for i in page.all("img")[4:10]]
    assert shades == sorted(shades)
    assert shades[0] < 20
    assert shades[-1] > 230


def test_counts_add_up_and_are_shown(tmp_path, card):
    page = render(card, [sample("a", "?", "1")], tmp_path, num_holdout=1, num_train=0)
    assert "Every sample once: 4 = 1 ok + 2 quarantined + 1 dropped." in page.text
    assert "over_length: drop" in page.text


def test_numbers_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="9 samples came in, but 1 ok, 2 quarantined and 1"):
        summary_of([parse_sample(sample("a", "?", "1"))], num_input=9)


def test_a_finding_says_what_to_do_and_names_examples(tmp_path, card):
    finding = Finding("missing_media", "quarantine", 12, tuple("abcdefg"))
    page = render(card, [sample("s", "?", "1")], tmp_path, findings=[finding])
    assert REASONS["missing_media"].expected in page.text
    assert REASONS["missing_media"].remedy in page.text
    row = page.text[page.text.index("missing_media") :]
    assert re.search(r"quarantine\s+12\s", row)
    assert "a, b, c, d, e\n" in row


def test_a_code_that_is_not_in_the_list_is_shown_all_the_same(tmp_path, card):
    page = render(card, [sample("s", "?", "1")], tmp_path, findings=[Finding("new", "warn", 1)])
    assert "new" in page.text


def test_without_findings_the_page_says_so(tmp_path, card):
    page = render(card, [sample("s", "?", "1")], tmp_path, findings=[])
    assert "Nothing was found wanting." in page.text


def test_what_comes_from_data_is_text_and_never_markup(tmp_path, card):
    write_picture(tmp_path / "a.png", 10)
    hostile = sample(HOSTILE, f"<image>{HOSTILE}", f"<ref>{HOSTILE}</ref>", image="a.png")
    boxed = sample(
        "b", "<image>", "<ref>&lt;script&gt;</ref><box>(0,0),(1,1)</box>", image="a.png"
    )
    page = render(
        card,
        [{**hostile, "source": HOSTILE}, boxed, sample("gone", "<image>", "?", image=HOSTILE)],
        tmp_path,
        findings=[Finding(HOSTILE, HOSTILE, 1, (HOSTILE,))],
        details={HOSTILE: HOSTILE},
        dropped={HOSTILE: 1},
    )
    assert page.all("script") == []
    assert {image["src"][:11] for image in page.all("img")} == {"data:image/"}
    assert page.text.count(HOSTILE) >= 10
    handlers = {name for _, attributes in page.tags for name in attributes if name[:2] == "on"}
    assert handlers == set()


def test_nothing_is_loaded_from_elsewhere(tmp_path, card):
    page = render(card, write_every_kind(tmp_path / "raw"), tmp_path / "raw")
    addresses = [
        attributes[name]
        for _, attributes in page.tags
        for name in ("src", "href", "data", "action", "srcset")
        if name in attributes
    ]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "url(" not in card.read_text(encoding="utf-8")
    policy = [m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"].startswith("default-src 'none'")


def test_hidden_and_steering_characters_are_shown_as_numbers(tmp_path, card):
    render(card, [sample("a\u202eb", "x\u2066y\u200b?", "1\u202d")], tmp_path)
    text = card.read_text(encoding="utf-8")
    assert "a⟨U+202E⟩b" in text
    assert not re.search("[\u200b\u202a-\u202e\u2066-\u2069]", text)


def test_a_box_and_a_point_are_drawn_where_they_are(tmp_path, card):
    Image.new("RGB", (320, 160), "red").save(tmp_path / "a.png")
    answer = (
        "<ref>the <b> cat</ref><box>(0.25,0.5),(0.75,1.0)</box> <point>(0.5, 0.25)</point>"
    ).replace("<b>", "&lt;b&gt;")
    page = render(card, [sample("s", "<image>?", answer, image="a.png")], tmp_path)
    box, _ = page.all("rect", "over")[0], page.all("rect", "under")[0]
    assert [box[name] for name in ("x", "y", "width", "height")] == [
        "40.0",
        "40.0",
        "80.0",
        "40.0",
    ]
    point = page.all("circle", "over")[0]
    assert (point["cx"], point["cy"]) == ("80.0", "20.0")
    assert "the <b> cat" in page.text


def test_boxes_in_questions_and_over_several_pictures_are_not_drawn(tmp_path, card):
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name, 10)
    box = "<box>(0.1,0.1),(0.2,0.2)</box>"
    page = render(
        card,
        [
            sample("q", f"<image>{box}?", "yes", image="a.png"),
            sample("two", "<image><image>?", box, image=["a.png", "b.png"]),
        ],
        tmp_path,
    )
    assert page.all("rect", "over") == []
    assert "1 places are not drawn: they do not say which picture they mean." in page.text


def test_a_picture_that_cannot_be_read_says_why_and_the_rest_is_shown(tmp_path, card):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    write_picture(tmp_path / "good.png", 10)
    page = render(
        card,
        [
            sample("bad", "<image>", "1", image="broken.png"),
            sample("film", "<video>", "1", video="broken.png"),
            sample("good", "<image>", "1", image="good.png"),
        ],
        tmp_path,
    )
    assert page.text.count("broken.png cannot be shown: ") == 2
    assert len(page.all("img")) == 1
    assert str(tmp_path) not in card.read_text(encoding="utf-8")


def test_only_so_many_pictures_of_a_sample_are_shown(tmp_path, card):
    names = [f"{number}.png" for number in range(MAX_PICTURES + 3)]
    for number, name in enumerate(names):
        write_picture(tmp_path / name, number)
    placeholders = "<image>" * len(names)
    page = render(
        card,
        [
            sample("many", f"{placeholders}?", "1", image=names),
            sample("film", "<video>?", "1", video=names),
        ],
        tmp_path,
    )
    assert len(page.all("img")) == 2 * MAX_PICTURES
    assert page.text.count("3 more pictures.") == 2


def test_the_label_mask_is_coloured_by_what_is_learned(tmp_path, card):
    found = parse_sample(sample("s", "<image>What?", "seven", image="a.png"))
    write_picture(tmp_path / "a.png", 10)
    mask = mask_of(found, build_tokenizer(), visual_tokens=[66])
    write_card(
        card, samples=[CardSample(found, "train", tmp_path, mask)], summary=summary_of([found])
    )
    text = card.read_text(encoding="utf-8")
    header = "&lt;|im_end|&gt;\n&lt;|im_start|&gt;assistant\n&lt;think&gt;\n\n&lt;/think&gt;\n\n"
    shown = re.findall(r'<span class="(\w+)" title="[^"]*">([^<]*)</span>', text)
    assert shown == [
        ("read_only", "&lt;|im_start|&gt;user\n"),
        ("visual", "image 1 (66 tokens)"),
        ("read_only", f"What?{header}"),
        ("supervised", "seven&lt;|im_end|&gt;"),
    ]
    total = sum(piece.num_tokens for piece in mask)
    learned = mask[-1].num_tokens
    assert f"Label mask: {total} tokens, {learned} learned" in text
    assert json.loads(card.with_suffix(".json").read_text())["samples"] == [
        {
            "id": "s",
            "kind": "single_image",
            "part": "train",
            "num_tokens": total,
            "num_supervised_tokens": learned,
        }
    ]


def test_what_is_cut_off_is_not_counted_as_read(tmp_path, card):
    found = parse_sample(sample("s", "?", "1"))
    mask = [Piece("a", "read_only", 3), Piece("b", "supervised", 2), Piece("c", "cut", 9)]
    write_card(
        card, samples=[CardSample(found, "train", tmp_path, mask)], summary=summary_of([found])
    )
    assert "Label mask: 5 tokens, 2 learned" in card.read_text(encoding="utf-8")


def test_without_a_tokenizer_the_mask_is_told_from_the_turns_and_says_so(tmp_path, card):
    page = render(card, [sample("s", "What?", "seven")], tmp_path)
    assert "Label mask, told from the turns: no tokenizer was given" in page.text
    assert "seven<|im_end|>" in page.text


def test_a_book_of_a_turn_is_cut(tmp_path, card):
    page = render(card, [sample("s", "word " * 100_000, "1")], tmp_path)
    assert "and 498,000 more characters" in page.text
    assert card.stat().st_size < 100_000


def test_a_histogram_has_a_bar_per_bin_and_tells_its_quantiles(tmp_path, card):
    statistics = Statistics(3, {}, {}, (Histogram.of("images", "per sample", [0, 1, 1, 3]),))
    page = render(card, [sample("s", "?", "1")], tmp_path, statistics=statistics)
    assert re.search(r"0: 1\s+1: 2\s+2: 0\s+3: 1", page.text)
    label = page.all("svg", "histogram")[0]["aria-label"]
    assert label == "images: 4 values from 0 to 3, half of them at most 1"


def test_an_empty_dataset_has_a_card_too(tmp_path, card):
    page = render(card, [], tmp_path)
    assert "No values." in page.text


def test_equal_data_gives_equal_bytes_wherever_it_lies(tmp_path):
    for folder in ("one", "two"):
        render(
            tmp_path / folder / "data_card.html",
            write_every_kind(tmp_path / folder / "raw"),
            tmp_path / folder / "raw",
        )
    for name in ("data_card.html", "data_card.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_json_holds_the_numbers(tmp_path, card):
    render(card, [sample("s", "?", "1")], tmp_path, details={"base model": "tiny"})
    values = json.loads((card.parent / "data_card.json").read_text(encoding="utf-8"))
    assert values["num_input"] == 4
    assert values["num_dropped"] == 1
    assert values["details"] == {"base model": "tiny"}
    assert values["findings"] == [
        {"code": "missing_media", "outcome": "quarantine", "count": 2, "examples": ["x", "y"]}
    ]
    tokens = values["statistics"]["histograms"][0]
    assert (tokens["name"], tokens["quantiles"]["p50"]) == ("tokens", 7)


def test_more_samples_than_the_sheet_has_room_for_are_refused(tmp_path, card):
    found = parse_sample(sample("s", "?", "1"))
    shown = [CardSample(found, "train", tmp_path)] * (MAX_SAMPLES + 1)
    with pytest.raises(ValueError, match="room for 24 samples, 25 were given"):
        write_card(card, samples=shown, summary=summary_of([found]))


def test_one_sample_has_a_page_of_its_own(tmp_path):
    found = parse_sample(sample("s", "What?", "seven"))
    write_sample_page(tmp_path / "s.html", CardSample(found, "holdout", tmp_path))
    page = Page((tmp_path / "s.html").read_text(encoding="utf-8"))
    assert "holdout" in page.text
    assert "seven<|im_end|>" in page.text
    assert "Counts" not in page.text


# ---- the choice of samples ------------------------------------------------------------------


def test_every_kind_gets_its_share_and_rare_kinds_are_all_shown():
    kinds = [(f"s{n}", "image") for n in range(1000)] + [("v1", "video"), ("t1", "text")]
    chosen = choose_samples(kinds, limit=10)
    assert len(chosen) == 10
    assert {1000, 1001} < set(chosen)
    assert chosen == sorted(chosen)


def test_the_choice_does_not_depend_on_order():
    kinds = [(f"s{n}", "ab"[n % 2]) for n in range(200)]
    names = {kinds[place][0] for place in choose_samples(kinds)}
    turned = kinds[::-1]
    assert {turned[place][0] for place in choose_samples(turned)} == names


def test_an_added_sample_replaces_at_most_one():
    kinds = [(f"s{n}", "image") for n in range(500)]
    before = set(choose_samples(kinds))
    for new in range(50):
        assert len(set(choose_samples([*kinds, (f"new{new}", "image")])) - before) <= 1


def test_another_seed_chooses_others_and_few_samples_are_all_chosen():
    kinds = [(f"s{n}", "image") for n in range(500)]
    assert choose_samples(kinds, seed=1) != choose_samples(kinds, seed=0)
    assert choose_samples(kinds[:3]) == [0, 1, 2]
    assert choose_samples([]) == []


def test_the_card_needs_no_torch():
    code = "import sys, ovis_model.data.checks.card; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_summary_can_be_changed_like_any_record():
    found = summary_of([parse_sample(sample("s", "?", "1"))])
    assert replace(found, num_holdout=1).num_dropped == 1
