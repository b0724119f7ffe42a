import json
import subprocess
import sys

import pytest

from ovis_model.data.schema import Sample, Turn, parse_sample, read_samples, write_samples
from ovis_model.errors import DataError

TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello, Ä!"}]


@pytest.mark.parametrize(
    ("given", "read"),
    [(None, ()), ("a.png", ("a.png",)), ([], ()), (["a.png", "b.png"], ("a.png", "b.png"))],
    ids=["null", "text", "empty-list", "list"],
)
def test_image_is_always_read_as_a_list(given: object, read: tuple[str, ...]) -> None:
    assert parse_sample({"id": "s", "image": given, "conversations": TURNS}).image == read


def test_a_video_is_one_file_or_a_list_of_frames() -> None:
    file = parse_sample({"id": "s", "video": "v.mp4", "conversations": TURNS})
    frames = parse_sample({"id": "s", "video": ["1.png", "2.png"], "conversations": TURNS})
    assert (file.media, file.frames) == (("v.mp4",), ())
    assert (frames.media, frames.frames) == (("1.png", "2.png"),) * 2


def test_an_empty_frame_list_is_no_video() -> None:
    assert parse_sample({"id": "s", "video": [], "conversations": TURNS}).video is None


def test_the_canonical_line_has_a_fixed_order_and_leaves_out_what_is_not_there() -> None:
    messy = {"conversations": TURNS, "video": None, "image": "a.png", "weight": 3, "id": 7}
    assert parse_sample(messy).to_json() == (
        '{"id": "7", "image": ["a.png"], "conversations": [{"from": "human", "value": "Hi"}, '
        '{"from": "gpt", "value": "Hello, Ä!"}]}'
    )


def test_samples_survive_writing_and_reading(tmp_path) -> None:
    turn = Turn(role="gpt", value="line\nbreak \u2028 and <tag>")
    samples = [
        Sample(id="1", conversations=(turn,), source="web"),
        Sample(id="2", video=("f.png",), conversations=(turn,)),
    ]
    assert write_samples(tmp_path / "deep/samples.jsonl", samples) == 2
    assert list(read_samples(tmp_path / "deep/samples.jsonl")) == samples
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["samples.jsonl"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "id: String should have at least 1 character (got '')"),
        ({"image": ""}, "image.0: String should have at least 1 character (got '')"),
        ({"image": [["a"]]}, "image.0: Input should be a valid string (got ['a'])"),
        ({"conversations": []}, "conversations: a conversation needs at least one turn (got [])"),
        (
            {"conversations": [{"from": "user", "value": "Hi"}]},
            (
                "conversations.0.from: Input should be 'system', 'human', 'gpt' or "
                "'ignored_gpt' (got 'user')"
            ),
        ),
        (
            {"conversations": [{"from": "gpt", "value": None}]},
            "conversations.0.value: Input should be a valid string (got None)",
        ),
        (
            {"conversations": [{"from": "gpt", "value": "", "weight": 0}]},
            "conversations.0.weight: Extra inputs are not permitted (got 0)",
        ),
    ],
    ids=["empty-id", "empty-path", "nested-list", "no-turn", "role", "null-text", "turn-key"],
)
def test_what_is_no_sample_says_where_and_why(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_sample({"id": "s", "conversations": TURNS, **changes})
    assert str(caught.value) == message


def test_a_missing_key_and_a_list_are_no_samples() -> None:
    with pytest.raises(DataError, match=r"^conversations: missing$"):
        parse_sample({"id": "s"})
    with pytest.raises(DataError, match=r"^a sample is a JSON object, this is a list$"):
        parse_sample([])


def test_a_broken_line_is_named_by_file_and_number(tmp_path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"id": "s", "conversations": TURNS}) + "\n{\n")
    with pytest.raises(DataError, match=r"train\.jsonl, line 2: .*run `dvc repro`"):
        list(read_samples(path))


def test_a_missing_file_names_the_remedy(tmp_path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl is missing; `dvc repro` writes it"):
        list(read_samples(tmp_path / "none.jsonl"))


def test_reading_the_schema_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'great_expectations', 'moviepy', 'pandas'}"
    code = f"import sys, ovis_model.data.schema; print({heavy} & set(sys.modules))"
    imported = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert imported.strip() == "set()"
