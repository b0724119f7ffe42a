"""Great Expectations' pages, made safe and whole; a browser looks at them in tests/pipeline."""

import pandas as pd
import pytest

from ovis_model.data.checks.data_docs import as_text, make_offline, values_as_text


def test_values_become_text_and_rows_stay():
    table = pd.DataFrame(
        {
            "id": pd.Series(["a", "<b>", None, "<b>"], dtype=object),
            "at": [0, 1, 2, 3],
            "num": pd.array([1, None, 2, 3], dtype="Int64"),
            "blank": [True, False, True, False],
        }
    )
    safe = values_as_text(table)
    assert safe["id"].tolist() == ["a", "&lt;b&gt;", None, "&lt;b&gt;"]
    for name in ("at", "num", "blank"):
        pd.testing.assert_series_equal(safe[name], table[name])
    assert table["id"].tolist()[1] == "<b>"


def test_a_table_without_texts_and_one_without_rows_stay_as_they_are():
    empty = pd.DataFrame({"id": pd.Series([], dtype=object), "none": pd.Series([], dtype=object)})
    pd.testing.assert_frame_equal(values_as_text(empty), empty)
    nothing = pd.DataFrame({"a": [None, None]}, dtype=object)
    pd.testing.assert_frame_equal(values_as_text(nothing), nothing)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("<script>", "&lt;script&gt;"),
        ("\"'&", "&quot;&#x27;&amp;"),
        ("a\x1b\u202e", "a⟨U+001B⟩⟨U+202E⟩"),
        ("plain", "plain"),
    ],
)
def test_a_value_is_shown_as_it_is(value, text):
    assert as_text(value) == text


PAGE = """<!DOCTYPE html><html><head><title>x</title><title></title>
<link rel="stylesheet" href="https://elsewhere.example/a.css"></head>
<body><a href="../../index.html"><img src="https://elsewhere.example/logo.png" alt="G"></a>
<script src="https://elsewhere.example/a.js"></script><script>run()</script>
<label onclick="run()">kept</label>
<td>Evaluated Expectations</div></td><td id="a"><div class="b">15</div></td>
<td>Unsuccessful Expectations</div></td><td id="a"><div class="b">4</div></td>
<footer><a href="https://elsewhere.example/letter">Subscribe</a></footer></body></html>"""


@pytest.fixture
def site(tmp_path):
    for name in (
        "index.html",
        "expectations/turns.html",
        "validations/turns/__none__/1/a turns.html",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(PAGE, encoding="utf-8")
    make_offline(tmp_path)
    return tmp_path


def test_pages_load_and_run_nothing(site):
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert "elsewhere.example" not in page
        assert "<script" not in page
        assert "onclick" not in page
        assert "default-src 'none'" in page.split("<title>")[0]


def test_what_a_page_says_is_kept_and_it_gets_a_name(site):
    page = (site / "validations/turns/__none__/1/a turns.html").read_text(encoding="utf-8")
    assert "kept" in page
    assert page.count("<title>") == 1
    assert "<title>Data Docs: turns</title>" in page
    assert '<a href="../../index.html">Data Docs</a>' in page


def test_the_home_page_links_to_every_other_and_counts(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    assert '<a href="validations/turns/__none__/1/a%20turns.html">turns</a>' in home
    assert '<a href="expectations/turns.html">turns</a>' in home
    assert "<td>15</td><td>4</td>" in home


def test_twice_is_as_good_as_once(site):
    before = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    make_offline(site)
    after = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert {p.name for p in before} == {p.name for p in after}
    assert after[site / "index.html"] == before[site / "index.html"]
