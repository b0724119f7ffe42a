from collections.abc import Iterator
from pathlib import Path

import pytest

from ovis_model.data.annotations.formats import read_records
from ovis_model.data.checks.facts import Facts, Survey, make_tables, survey
from ovis_model.data.checks.media_fact import MediaFact
from ovis_model.data.checks.spool import SampleSpool
from tests.support.raw_data import sample, write_annotations, write_every_kind, write_picture


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SampleSpool]:
    with SampleSpool(tmp_path / "spool") as opened:
        yield opened


def read(folder: Path, spool: SampleSpool, *samples: object) -> Survey:
    return survey(read_records(write_annotations(folder, samples)), folder, spool)


def tables_of(found: Survey) -> Facts:
    """Lay out the tables as if every medium were a sound picture of 32 x 32 px."""
    return make_tables(
        found,
        [
            MediaFact(path, kind, sha256=path, width=32, height=32)
            for kind, path in found.media_of()
        ],
    )


def test_good_samples_of_every_kind_have_facts(tmp_path: Path, spool: SampleSpool) -> None:
    facts = tables_of(read(tmp_path, spool, *write_every_kind(tmp_path)))
    rows = facts.samples.set_index("id")
    assert rows.loc["several", ["num_images", "num_image_placeholders"]].tolist() == [2, 2]
    assert rows.loc["clip", "media_kinds"] == rows.loc["frames", "media_kinds"] == "video"
    assert rows.loc["system", "roles"] == "system human gpt"
    assert rows.loc["text", "media_kinds"] == "none"
    assert rows.loc["frames", ["num_listed_frames", "num_frame_sizes"]].tolist() == [3, 1]
    assert rows["schema_error"].isna().all()
    assert len(spool) == len(rows) == 9


def test_there_is_a_row_per_turn_and_per_use_of_a_medium(
    tmp_path: Path, spool: SampleSpool
) -> None:
    facts = tables_of(read(tmp_path, spool, *write_every_kind(tmp_path)))
    twice = facts.turns[facts.turns["id"] == "twice"]
    assert twice["turn"].tolist() == [1, 2, 3, 4]
    assert twice["role"].tolist() == ["human", "gpt", "human", "gpt"]
    uses = facts.media.groupby("id")["path"].apply(list)
    assert uses["several"] == ["images/c.png", "images/d.png"]
    assert uses["clip"] == ["videos/clip.mp4"]
    assert facts.media.set_index("path").loc["videos/clip.mp4", "kind"] == "video"


def test_a_file_named_by_many_samples_is_one_medium(tmp_path: Path, spool: SampleSpool) -> None:
    same = [sample(f"s{n}", "<image>?", "5", image="a.png") for n in range(3)]
    found = read(tmp_path, spool, *same)
    assert list(found.media_of()) == [("image", "a.png")]
    assert tables_of(found).media["medium"].tolist() == [0, 0, 0]


def test_a_record_that_is_no_sample_is_a_row_with_its_reason(
    tmp_path: Path, spool: SampleSpool
) -> None:
    facts = tables_of(read(tmp_path, spool, {"id": "odd"}, sample("fine", "Hi?", "Hello.")))
    assert facts.samples["schema_error"].tolist()[0] == "conversations: missing"
    assert facts.samples["num_answers"].isna().tolist() == [True, False]
    assert [row for row, _ in spool] == [1]


def test_data_without_any_medium_has_an_empty_table(tmp_path: Path, spool: SampleSpool) -> None:
    facts = tables_of(read(tmp_path, spool, sample("s", "Hi?", "Hello.")))
    assert len(facts.media) == 0
    assert len(facts.turns) == 2


def test_frames_of_several_sizes_are_counted(tmp_path: Path, spool: SampleSpool) -> None:
    found = read(tmp_path, spool, sample("s", "<video>?", "7", video=["a.png", "b.png", "c.png"]))
    sizes = {"a.png": 32, "b.png": 64, "c.png": 32}
    facts = make_tables(
        found,
        [MediaFact(path, kind, width=sizes[path], height=32) for kind, path in found.media_of()],
    )
    assert facts.samples["num_frame_sizes"].tolist() == [2]


def test_a_folder_of_frames_is_a_video_in_natural_order(
    tmp_path: Path, spool: SampleSpool
) -> None:
    for name in ("f10.png", "f2.png", "f1.png"):
        write_picture(tmp_path / "clips/one" / name, 5)
    (tmp_path / "clips/one/notes.txt").write_text("no frame")
    found = read(tmp_path, spool, sample("s", "<video>?", "7", video="clips/one/"))
    assert [path for _, path in found.media_of()] == [
        f"clips/one/{name}" for name in ("f1.png", "f2.png", "f10.png")
    ]


def test_a_folder_without_pictures_is_a_broken_sample(tmp_path: Path, spool: SampleSpool) -> None:
    (tmp_path / "empty").mkdir()
    facts = tables_of(read(tmp_path, spool, sample("s", "<video>?", "7", video="empty")))
    assert "holds no images" in facts.samples["schema_error"][0]
    assert str(tmp_path) not in facts.samples["schema_error"][0]


@pytest.mark.parametrize(
    ("sample_id", "is_unsafe"),
    [
        ("../../x", True),
        ("/etc/passwd", True),
        ("a/../b", True),
        ("~root", True),
        ("vg/100/7.jpg", False),
        ("a..b", False),
    ],
)
def test_an_id_that_looks_like_a_way_out_is_noted(
    tmp_path: Path, spool: SampleSpool, sample_id: str, is_unsafe: bool
) -> None:
    facts = tables_of(read(tmp_path, spool, sample(sample_id, "Hi", "Hello")))
    assert facts.samples["unsafe_id"].notna().tolist() == [is_unsafe]


def test_equal_samples_repeat_and_different_ones_clash(tmp_path: Path, spool: SampleSpool) -> None:
    facts = tables_of(
        read(
            tmp_path,
            spool,
            sample("same", "Hi", "Hello"),
            sample("other", "Hi", "Hello"),
            sample("same", "Hi", "Hello"),
            sample("clash", "Hi", "Hello"),
            sample("clash", "Hi", "Good day"),
        )
    )
    assert facts.samples["repeats"].tolist() == [-1, -1, 0, -1, -1]
    clashes = facts.samples["duplicate_id"]
    assert clashes.isna().tolist() == [True, True, True, False, False]
    assert clashes.tolist()[3:] == ["also at entry 5", "also at entry 4"]


def test_limits_that_samples_bring_along_are_not_ours(tmp_path: Path, spool: SampleSpool) -> None:
    read(tmp_path, spool, {**sample("s", "Hi", "Hello"), "fit": {"max_tokens": 3}})
    assert spool.read(0).fit is None
