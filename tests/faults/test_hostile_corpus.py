"""76 kinds of bad input: each record ends as it should, and none does harm on its way there."""

import json
import random
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ovis_model.config import OverLength
from ovis_model.data.annotations.formats import read_records
from ovis_model.data.media.images import load_rgb, read_size
from ovis_model.data.media_files import INDEX, MediaFiles
from ovis_model.data.reasons import REASONS
from ovis_model.errors import DataError
from tests.corpus import KINDS, write_corpus
from tests.corpus.dataset import Expectation, Expected, speak
from tests.corpus.media import encoded, quadrants
from tests.corpus.verdicts import (
    TABLE_HEAD,
    Line,
    Verdicts,
    extract_kind,
    judge_kind,
    table_row,
    validate_kind,
)
from tests.corpus.watch import opened_files

BY_NAME = {kind.name: kind for kind in KINDS}
EVERY_KIND = pytest.mark.parametrize("name", BY_NAME)
WITH_MEDIA = pytest.mark.parametrize("name", [kind.name for kind in KINDS if kind.number >= 31])
#: Kinds with files that are no annotations at all.
_REFUSED = (1, 2, 3, 9)
#: What programs that come with data would leave behind.
CANARIES = ("canary", "slip.png")


class World:
    """Kinds that were written and validated, each once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, tuple[Expectation, Verdicts, list[str]]] = {}

    def see(self, name: str) -> tuple[Expectation, Verdicts, list[str]]:
        """Return what is expected of a kind, what became of it, and forbidden files it opened."""
        if name not in self._known:
            expectation = BY_NAME[name].build(self.root)
            folder = self.root / name
            outside = folder / "outside"
            outside.mkdir(exist_ok=True)
            with opened_files(outside) as opened:
                found = validate_kind(folder, expectation) if expectation.records else Verdicts(())
            self._known[name] = expectation, found, opened
        return self._known[name]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("corpus"))


def show(line: Line, expected: Expected) -> dict[str, object]:
    """Tell what became of a record as `Expected` tells what should have."""
    warnings = line.warnings if expected.verdict == "ok" else expected.warnings
    return {
        "verdict": line.verdict,
        "codes": line.codes,
        "policy": line.policy,
        "warnings": tuple(warnings),
    }


def want(expected: Expected) -> dict[str, object]:
    return {
        "verdict": expected.verdict,
        "codes": tuple(sorted(expected.codes)),
        "policy": expected.policy,
        "warnings": tuple(sorted(expected.warnings)),
    }


@EVERY_KIND
def test_every_record_of_a_kind_ends_as_it_should(world: World, name: str) -> None:
    expectation, found, _ = world.see(name)
    records = expectation.records
    assert len(found.lines) == len(records)
    pairs = list(zip(found.lines, records, strict=True))
    wrong = {
        expected.key: (show(line, expected), line.details)
        for line, expected in pairs
        if show(line, expected) != want(expected)
    }
    assert wrong == {}
    for line, expected in pairs:
        assert line.id == expected.key.partition("#")[0] or line.id.startswith("auto-")


@EVERY_KIND
def test_a_dataset_is_refused_only_for_what_weighs_as_much(world: World, name: str) -> None:
    expectation, found, _ = world.see(name)
    if expectation.stops:
        assert found.error is not None
        assert [code for code in expectation.stops if code not in found.error] == []
    else:
        assert found.error is None


@pytest.mark.parametrize("name", [kind.name for kind in KINDS if kind.number in _REFUSED])
def test_a_file_that_holds_no_samples_is_refused_with_its_reason(world: World, name: str) -> None:
    expectation, _, _ = world.see(name)
    for file, pattern in expectation.refused.items():
        error = validate_kind(world.root / name, expectation, annotations=file).error
        assert error is not None, f"{file} was read"
        assert file in error
        assert re.search(pattern, error), f"{file}: {error}"


@EVERY_KIND
def test_no_kind_reads_or_writes_what_is_not_its_own(world: World, name: str) -> None:
    _, _, opened = world.see(name)
    assert opened == []
    left = [path for canary in CANARIES for path in world.root.rglob(canary)]
    assert left == []
    assert [canary for canary in CANARIES if Path(canary).exists()] == []


def test_pictures_look_as_they_should(world: World) -> None:
    differing = {}
    for name in BY_NAME:
        expectation, _, _ = world.see(name)
        for shown in expectation.shown:
            path = world.root / name / "raw" / shown.file
            image = load_rgb(path)
            seen: list[Any] = [image.getpixel(pixel[:2]) for pixel in shown.pixels]
            close = all(
                abs(a - b) <= shown.tolerance
                for colour, pixel in zip(seen, shown.pixels, strict=True)
                for a, b in zip(colour, pixel[2:], strict=True)
            )
            if not close or image.size != shown.size or read_size(path) != shown.size:
                differing[f"{name}/{shown.file}"] = (image.mode, image.size, seen)
    assert differing == {}


@WITH_MEDIA
def test_what_validation_calls_usable_is_extracted_or_set_aside(world: World, name: str) -> None:
    expectation, _, _ = world.see(name)
    found = extract_kind(world.root / name)
    assert found.error is None
    wanted = {r.key: r.later for r in expectation.records if r.verdict == "ok"}
    details = [line.details for line in found.lines if line.details]
    assert {line.id: line.codes for line in found.lines} == wanted, details


def test_a_shard_with_surprises_is_refused_or_they_do_nothing(world: World) -> None:
    expectation, _, _ = world.see("38_shards")
    folders = sorted((world.root / "38_shards/shards").iterdir())
    assert {folder.name for folder in folders} == {*expectation.refused, "stowaways"}
    for folder in folders:
        lines = (folder / INDEX).read_text(encoding="utf-8").splitlines()
        name = json.loads(lines[0])["name"]
        if folder.name in expectation.refused:
            with pytest.raises(DataError, match=expectation.refused[folder.name]):
                MediaFiles(folder).read(name)
        else:
            assert MediaFiles(folder).read(name).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("policy", "verdict"), [("drop", "dropped"), ("truncate_text", "ok"), ("error", "quarantined")]
)
def test_what_becomes_of_long_samples_is_a_policy(
    world: World, policy: OverLength, verdict: str
) -> None:
    name = "28_too_long"
    expectation, _, _ = world.see(name)
    found = validate_kind(world.root / name, expectation, policy=policy)
    verdicts = {line.id: line.verdict for line in found.lines}
    assert verdicts["long-answer"] == verdicts["long-beside-image"] == verdict
    assert verdicts["good"] == verdicts["short-beside-image"] == "ok"


def test_the_corpus_holds_every_kind_of_the_catalogue_once() -> None:
    assert [kind.number for kind in KINDS] == list(range(1, 77))
    assert len({kind.slug for kind in KINDS}) == 76


def test_the_same_code_writes_the_same_corpus(tmp_path: Path) -> None:
    first, second = (write_corpus(tmp_path / name) for name in ("once", "more"))
    assert {n: list(map(want, e.records)) for n, e in first.items()} == {
        n: list(map(want, e.records)) for n, e in second.items()
    }
    written = {name: _contents(tmp_path / name) for name in ("once", "more")}
    assert written["once"] == written["more"]


def _contents(root: Path) -> dict[str, bytes]:
    # Absolute paths, which some kinds are about, contain the root.
    place = str(root).encode()
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    small = (path for path in files if path.stat().st_size < 2**26)
    return {str(p.relative_to(root)): p.read_bytes().replace(place, b"") for p in small}


def test_every_expected_code_is_a_reason_or_a_policy(tmp_path: Path) -> None:
    known = {*REASONS, "repeated"}
    for name, expectation in write_corpus(tmp_path).items():
        assert set(expectation.codes) <= known, name
        expected = json.loads((tmp_path / name / "expect.json").read_text(encoding="utf-8"))
        assert expected["codes"] == list(expectation.codes)
        is_whole = expectation.records == ()
        assert is_whole or any(record.verdict == "ok" for record in expectation.records), name


def test_the_table_of_verdicts_says_what_became_of_a_kind(tmp_path: Path) -> None:
    assert len({header.count("|") for header in TABLE_HEAD}) == 1
    rows = {
        "11_repeated": "| 11_repeated | policy | 2 | 0 | 2 | repeated |",
        "03_no_list": "| 03_no_list | D | 0 | 0 | 0 | dataset refused |",
        "58_changing": "| 58_changing | Q | 2 | 1 | 0 | unreadable_media |",
    }
    for name, row in rows.items():
        expectation = BY_NAME[name].build(tmp_path)
        assert table_row(name, expectation, judge_kind(tmp_path / name, expectation)) == row


def test_whoever_opens_a_watched_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("", encoding="utf-8")
    with opened_files(tmp_path) as opened:
        (tmp_path / "secret").stat()
        subprocess.run(["cat", tmp_path / "secret"], check=True)
    assert opened == ["secret"]


def mutate(content: bytes, rng: random.Random, *, most: int = 6) -> bytes:
    """Flip, remove, repeat or insert a few bytes, up to `most` times."""
    mutant = bytearray(content)
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(len(mutant))
        match rng.randrange(4):
            case 0:
                mutant[at] ^= 1 << rng.randrange(8)
            case 1:
                del mutant[at : at + rng.randint(1, 16)]
            case 2:
                mutant[at:at] = mutant[at : at + rng.randint(1, 64)]
            case _:
                mutant[at:at] = rng.randbytes(rng.randint(1, 8))
        mutant = mutant or bytearray(b"\0")
    return bytes(mutant)


def test_mangled_records_are_refused_or_read(tmp_path: Path) -> None:
    rng = random.Random(0)
    turns = speak([("human", "<image>?"), ("gpt", "\u00e9")])
    record = {"id": "a", "image": ["b.png"], "conversations": turns}
    seeds = (json.dumps([record, record]), json.dumps(record) + "\n" + json.dumps(record))
    outcomes = {"read": 0, "refused": 0}
    for number in range(400):
        content = mutate(seeds[number % 2].encode(), rng, most=2)
        outcomes[_try(partial(_parse, tmp_path, content))] += 1
    assert min(outcomes.values()) > 10, outcomes


def _parse(folder: Path, content: bytes) -> None:
    path = folder / "annotations.json"
    path.write_bytes(content)
    for record in read_records(path):
        record.parse()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_mangled_pictures_are_refused_or_read(tmp_path: Path, form: str) -> None:
    rng = random.Random(form)
    seed = encoded(quadrants(), form)
    path = tmp_path / "a.png"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(100):
        path.write_bytes(mutate(seed, rng))
        _try(partial(read_size, path))
        outcomes[_try(partial(load_rgb, path))] += 1
    assert outcomes["refused"] > 20, outcomes


def _try(action: Callable[[], object]) -> str:
    """Run it; any error but a DataError is a crash, and fails the test."""
    try:
        action()
    except DataError:
        return "refused"
    return "read"
