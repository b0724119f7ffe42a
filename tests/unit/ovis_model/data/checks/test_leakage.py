import json
from pathlib import Path

import numpy as np
import pytest

from ovis_model.data.checks.leakage import (
    Exam,
    leaked_looks,
    leaked_question,
    list_exam_media,
    near_duplicates,
    question_key,
    read_exam,
)
from ovis_model.data.checks.media_fact import MediaFact
from ovis_model.data.schema import parse_sample
from ovis_model.errors import DataError
from tests.support.raw_data import sample

A = 0x0123456789ABCDEF


def pairs(*looks: int) -> set[tuple[int, int]]:
    return {(left, right) for left, right in near_duplicates(looks).tolist()}


@pytest.mark.parametrize("bits", [(0,), (0, 63), (5, 21, 40)])
def test_looks_that_differ_in_up_to_three_bits_are_one_picture(bits: tuple[int, ...]) -> None:
    other = A
    for bit in bits:
        other ^= 1 << bit
    assert pairs(A, other) == {(0, 1)}


def test_looks_that_differ_in_four_bits_are_two_pictures() -> None:
    assert pairs(A, A ^ 0b1111) == set()


def test_of_equal_looks_each_is_paired_with_the_first() -> None:
    assert pairs(A, A, A, 0xFF00FF00) == {(0, 1), (0, 2)}
    assert pairs() == set()


def test_the_pairs_are_those_of_comparing_all_with_all() -> None:
    random = np.random.default_rng(0)
    base = random.integers(0, 2**63, 30, dtype=np.uint64)
    flips = np.array([1 << int(b) for b in random.integers(0, 64, 90)], dtype=np.uint64)
    looks = np.unique(np.concatenate([base, np.tile(base, 3) ^ flips]))
    expected = {
        (i, j)
        for i in range(len(looks))
        for j in range(i + 1, len(looks))
        if (int(looks[i]) ^ int(looks[j])).bit_count() <= 3
    }
    assert pairs(*looks.tolist()) == expected


def exam(*looks: int) -> Exam:
    return Exam({}, {look: f"exam{n}" for n, look in enumerate(looks)}, {})


def test_a_picture_that_looks_like_a_benchmarks_is_found_and_so_are_its_equals() -> None:
    near = A ^ 0b11
    assert leaked_looks([0xF0F0, near, near], exam(A)) == {1: "exam0", 2: "exam0"}
    assert leaked_looks([A, A], exam(0xF0F0, A)) == {0: "exam1", 1: "exam1"}
    assert leaked_looks([], exam(A)) == {}


LONG = "Read the third line of the small table on the left of the page aloud"


@pytest.mark.parametrize(
    ("question", "has_media", "tells"),
    [
        ("What is two plus two?", False, True),
        ("Which digit is this?", True, False),
        (LONG, True, True),
        ("<image>?!", True, False),
        ("...", False, False),
    ],
)
def test_short_questions_about_pictures_do_not_tell(
    question: str, has_media: bool, tells: bool
) -> None:
    assert (question_key(question, has_media=has_media) is not None) == tells


def write_exam(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "images/a.png").write_bytes(b"a")
    (folder / "clip.mp4").write_bytes(b"b")
    (folder / "b.yaml").write_text("name: b")
    items = [
        {"id": "1", "question": "What is 2 + 2?", "answer": "4"},
        {"id": "2", "question": f"<image>\n{LONG}", "image": ["images/a.png"], "answer": "x"},
        {"id": "3", "question": "<image>\nWhich?", "image": ["images/a.png"], "answer": "x"},
    ]
    (folder / "b.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items) + "\n")
    return folder


def test_a_benchmark_shows_its_files_and_asks_its_questions(tmp_path: Path) -> None:
    folder = write_exam(tmp_path)
    media = list_exam_media(folder)
    assert media == [("video", "clip.mp4"), ("image", "images/a.png")]
    facts = [
        MediaFact("clip.mp4", "video", sha256="bb"),
        MediaFact("images/a.png", "image", sha256="aa", look=f"{A:016x}"),
    ]
    found = read_exam(folder, facts)
    assert found.digests == {"bb": "clip.mp4", "aa": "images/a.png"}
    assert found.looks == {A: "images/a.png"}
    assert sorted(found.questions.values()) == ["b.jsonl, line 1", "b.jsonl, line 2"]


def test_a_sample_that_asks_a_benchmarks_question_says_which(tmp_path: Path) -> None:
    found = read_exam(write_exam(tmp_path), [])
    asked = parse_sample(sample("s", "Hi", "Hello", "what is 2 + 2", "4"))
    assert leaked_question(asked, found) == "b.jsonl, line 1"
    assert leaked_question(parse_sample(sample("s", "What is 2 + 3?", "5")), found) is None


def test_a_broken_benchmark_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"question": "?"}\n{"question\n')
    with pytest.raises(DataError, match=r"b\.jsonl, line 2 is not JSON: .*evaluate\.benchmarks"):
        read_exam(tmp_path, [])
