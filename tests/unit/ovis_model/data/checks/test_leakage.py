import json
from pathlib import Path

import pytest

from ovis_model.data.checks.leakage import (
    Exam,
    leaked_looks,
    leaked_question,
    list_exam_media,
    question_key,
    read_exam,
)
from ovis_model.data.checks.media_fact import MediaFact
from ovis_model.data.schema import parse_sample
from ovis_model.errors import DataError
from tests.support.raw_data import sample

A = "0123456789abcdef" + "80" * 64
NEAR = "0123456789abcdec" + "80" * 64
FAR = "00000000000ff0f0" + "80" * 64


def exam(*looks: str) -> Exam:
    return Exam({}, {look: f"exam{n}" for n, look in enumerate(looks)}, {})


def test_a_picture_that_looks_like_a_benchmarks_is_found_and_so_are_its_equals() -> None:
    assert leaked_looks([FAR, NEAR, NEAR], exam(A)) == {1: "exam0", 2: "exam0"}
    assert leaked_looks([A, A], exam(FAR, A)) == {0: "exam1", 1: "exam1"}
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
        MediaFact("images/a.png", "image", sha256="00", pixels="aa", look=A),
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
