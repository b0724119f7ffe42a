"""What the documents say about the code is compared with the code."""

import re
from pathlib import Path

import pytest

from ovis_model.config import EvaluateConfig, GateConfig
from ovis_model.data.reasons import REASONS
from ovis_model.drift.rules import DriftRules
from ovis_model.train_config import TrainConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PARITY = (DOCS / "parity.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "data/README.md"]
PAGES += sorted(DOCS.rglob("*.md"))
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
#: Page, section and class of each table of keys.
KEY_TABLES = [
    pytest.param("training.md", "train", TrainConfig, id="train"),
    pytest.param("evaluation.md", "evaluate", EvaluateConfig, id="evaluate"),
    pytest.param("evaluation.md", "register.gate", GateConfig, id="gate"),
    pytest.param("operations.md", "drift", DriftRules, id="drift"),
]


def page_id(path):
    return path.relative_to(ROOT).as_posix()


def prose_of(page):
    """Return a page without its code blocks and code spans."""
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    return re.sub(r"`[^`\n]*`", "", text)


def code_of(page):
    """Return the code blocks, fenced and indented, and the code spans of a page."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join(
        [*fenced, *re.findall(r"^ {4}.*$", text, flags=re.MULTILINE), *spans_of(text)]
    )


def spans_of(text):
    return re.findall(r"`([^`\n]+)`", text)


def anchor_of(heading):
    """Spell a heading as GitHub spells its anchor."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors_of(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {anchor_of(heading) for heading in headings}


def rows_below(page, first_cell):
    """Return the rows, as lists of cells, of the table whose first header cell is given."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_cell} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def default_of(field):
    if field.is_required():
        return "required"
    return str(field.get_default(call_default_factory=True))


# ---- links and commands ---------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors_of(linked), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_make_target_that_is_named_exists(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    targets |= set(re.search(r"^STEPS = (.*)$", makefile, flags=re.MULTILINE)[1].split())
    named = set(re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", code_of(page)))
    assert named <= targets


# ---- configuration --------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "section", "config"), KEY_TABLES)
def test_a_table_of_keys_has_every_key_of_its_class_with_its_default(page, section, config):
    shown = {row[0].strip("`"): row[1].strip("`") for row in rows_below(page, f"`{section}` key")}
    assert shown == {name: default_of(field) for name, field in config.model_fields.items()}


def test_every_train_key_has_a_proof_of_its_effect():
    proofs = (ROOT / "tests/unit/ovis_model/training/test_every_key.py").read_text("utf-8")
    assert [key for key in TrainConfig.model_fields if f'"{key}"' not in proofs] == []


# ---- parity ---------------------------------------------------------------------------------


def slugs_in(folder):
    """Find what is marked as a difference to the reference, below a folder."""
    return {
        slug
        for path in (ROOT / folder).rglob("*.py")
        for slug in re.findall(r"DIVERGES\(([\w-]+)\)", path.read_text(encoding="utf-8"))
    }


def test_every_divergence_in_the_code_is_explained_and_no_other():
    explained = set(re.findall(r"^### `([\w-]+)`$", PARITY, flags=re.MULTILINE))
    assert explained == slugs_in("ovis_model")


def test_every_divergence_in_the_code_is_named_by_a_test_and_no_other():
    assert slugs_in("tests") == slugs_in("ovis_model")


def test_an_explained_divergence_links_to_the_file_that_is_marked():
    for section in re.split(r"^### ", PARITY, flags=re.MULTILINE)[1:]:
        slug = spans_of(section)[0]
        (target,) = re.findall(r"^In \[`[\w.]+`\]\((\S+)\)\.$", section, flags=re.MULTILINE)
        assert f"DIVERGES({slug})" in (DOCS / target).read_text(encoding="utf-8"), slug


def test_every_parity_test_that_is_named_exists():
    for row in rows_below("parity.md", "numbers"):
        file, *tests = spans_of(row[1])
        code = (ROOT / "tests/parity" / file).read_text(encoding="utf-8")
        assert tests
        assert [name for name in tests if f"\ndef {name}(" not in code] == [], file


def test_every_tolerance_that_is_promised_is_one_that_is_tested():
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests/parity").glob("*.py"))
    promised = {row[1] for row in rows_below("parity.md", "what")}
    numbers = {number for limit in promised for number in re.findall(r"\de-\d", limit)}
    assert numbers
    assert {number for number in numbers if number not in code} == set()


def test_every_reason_code_of_validation_is_explained():
    rows = {spans_of(row[0])[0]: row[1:] for row in rows_below("data.md", "code")}
    assert list(rows) == list(REASONS)
    for code, (weight, expected, remedy) in rows.items():
        reason = REASONS[code]
        # Code spans are the page's.
        texts = [text.replace("`", "") for text in (expected, remedy)]
        wanted = [text.replace("`", "") for text in (reason.expected, reason.remedy)]
        assert (weight, texts) == (reason.severity, wanted)
