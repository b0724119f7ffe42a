import os
from pathlib import Path

import pytest

from ovis_model.data.facts import COLUMNS, Facts, collect_facts, unsafe_reason
from ovis_model.data.formats import read_records
from tests.support.raw_data import sample, write_annotations, write_every_kind, write_picture


def facts_of(folder: Path, *samples: object) -> Facts:
    return collect_facts(read_records(write_annotations(folder, samples)), folder)


def test_good_samples_of_every_kind_have_facts_and_no_problem(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, *write_every_kind(tmp_path))
    assert list(facts.table.columns) == list(COLUMNS)
    problems = [c for c in COLUMNS if c.endswith(("_problem", "_error", "_path", "_media"))]
    assert facts.table[[*problems, "control_token"]].isna().all(axis=None)
    rows = facts.table.set_index("id")
    assert rows.loc["several", ["num_images", "num_image_placeholders"]].tolist() == [2, 2]
    assert rows.loc["clip", "media_kinds"] == rows.loc["frames", "media_kinds"] == "video"
    assert rows.loc["system", "roles"] == "system human gpt"
    assert rows.loc["text", "media_kinds"] == "none"


def test_a_file_named_by_many_samples_is_looked_at_once(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", 5)
    same = [sample(f"s{n}", "<image>?", "5", image="a.png") for n in range(3)]
    facts = facts_of(tmp_path, *same)
    assert list(facts.media) == ["a.png"]
    assert facts.media["a.png"].size == (32, 32)


def test_a_record_that_is_no_sample_is_a_row_with_its_reason(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, {"id": "odd"}, sample("fine", "Hi?", "Hello."))
    assert facts.table["schema_error"].tolist()[0] == "conversations: missing"
    assert facts.table["num_answers"].isna().tolist() == [True, False]
    assert [s is None for s in facts.samples] == [True, False]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("<think>\nHm.\n</think>\n\n7", None),
        ("7", None),
        ("<think>\nHm. 7", "tags are <think>"),
        ("Hm.</think> 7", "tags are </think>"),
        ("<think>a<think>b</think></think>7", "tags are <think> <think> </think> </think>"),
        ("</think>7<think>", "tags are </think> <think>"),
        ("7 <think>because</think> so", "text before <think>"),
    ],
)
def test_thoughts_are_balanced_and_come_first(
    tmp_path: Path, answer: str, problem: str | None
) -> None:
    table = facts_of(tmp_path, sample("s", "Which?", answer)).table
    assert table["think_problem"].tolist() == [problem]


def test_a_question_does_not_think(tmp_path: Path) -> None:
    table = facts_of(tmp_path, sample("s", "<think></think>?", "7")).table
    assert table["think_problem"].tolist() == ["<think> in a 'human' turn"]


def test_a_thought_alone_is_an_empty_answer(tmp_path: Path) -> None:
    table = facts_of(tmp_path, sample("s", "Which?", "<think>\nHm.\n</think>\n\n")).table
    assert table["shortest_turn_chars"].tolist() == [0]


@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|image_pad|>"])
def test_tokens_that_steer_the_model_are_found_in_any_turn(tmp_path: Path, token: str) -> None:
    table = facts_of(tmp_path, sample("s", f"Hi {token}", "Hello.")).table
    assert table["control_token"].tolist() == [f"{token} in a 'human' turn"]


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        ("<box>(0.100,0.200),(0.300,0.400)</box>", True),
        ("<box>( 0.1 , 0.2 ) , (0.3,0.4)</box>", True),
        ("<point>(0.000,0.999)</point>", True),
        ("<box>(120,200),(300,400)</box>", False),
        ("<box>(0.3,0.4),(0.1,0.2)</box>", False),
        ("<box>0.1,0.2,0.3,0.4</box>", False),
        ("<point>(0.5,1.0)</point>", False),
        ("<point>(-0.1,0.5)</point>", False),
    ],
)
def test_boxes_and_points_are_fractions_in_ovis_notation(
    tmp_path: Path, answer: str, good: bool
) -> None:
    table = facts_of(tmp_path, sample("s", "Where?", answer)).table
    assert table["grounding_problem"].tolist() == [None if good else answer]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "'/etc/passwd' is not relative to the data folder"),
        ("~/a.png", "'~/a.png' is not relative to the data folder"),
        ("a/../../b.png", "'a/../../b.png' leaves the data folder"),
        ("http://host/a.png", "'http://host/a.png' is an address, not a file"),
        ("a\0.png", "'a\\x00.png' holds a NUL character"),
    ],
)
def test_paths_that_leave_the_data_folder_are_not_opened(
    tmp_path: Path, path: str, reason: str
) -> None:
    assert unsafe_reason(path, tmp_path.resolve()) == reason
    facts = facts_of(tmp_path, sample("s", "<image>?", "7", image=path))
    assert facts.table["unsafe_path"].tolist() == [reason]
    assert facts.media[path].sha256 is None


def test_links_may_point_inside_the_data_folder_but_not_out(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_picture(raw / "real.png", 5)
    write_picture(tmp_path / "secret.png", 6)
    (raw / "inside.png").symlink_to("real.png")
    (raw / "outside.png").symlink_to(tmp_path / "secret.png")
    (raw / "loop.png").symlink_to("loop.png")
    names = ("inside.png", "outside.png", "loop.png")
    facts = facts_of(raw, *(sample(n, "<image>?", "7", image=n) for n in names))
    inside, outside, loop = (facts.media[name] for name in names)
    assert inside.sha256
    assert outside.unsafe == "'outside.png' is a symbolic link out of the data folder"
    assert loop.unsafe is not None
    assert "cannot be followed" in loop.unsafe


def test_a_folder_and_a_pipe_are_no_media_and_nothing_waits_for_them(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    names = ("folder.png", "pipe.png")
    facts = facts_of(tmp_path, *(sample(n, "<image>?", "7", image=n) for n in names))
    assert facts.table["unreadable_media"].tolist() == [
        f"{name} is not a regular file" for name in names
    ]


def test_reasons_do_not_tell_where_the_project_lies(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    facts = facts_of(tmp_path, sample("s", "<image>?", "7", image="broken.png"))
    assert str(tmp_path) not in facts.table["unreadable_media"][0]


def test_frames_of_several_sizes_are_counted(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", 5)
    write_picture(tmp_path / "b.png", 5, side=64)
    facts = facts_of(tmp_path, sample("s", "<video>?", "7", video=["a.png", "b.png"]))
    assert facts.table["num_frame_sizes"].tolist() == [2]
