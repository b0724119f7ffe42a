"""Pictures read from a folder and from shards, and shards that somebody tampered with."""

import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest

from ovis_model.data.media_files import INDEX, MediaFiles
from ovis_model.data.shards import pack
from ovis_model.errors import DataError
from ovis_model.reports import sha256_of_file
from tests.support.raw_data import picture


def png(shade: int, *, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    picture(shade, side=side).save(buffer, format="PNG")
    return buffer.getvalue()


def name_of(content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"media/{digest[:2]}/{digest}.png"


def write_folder(root: Path, contents: list[bytes]) -> list[str]:
    for content in contents:
        path = root / name_of(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return list(map(name_of, contents))


def write_shards(root: Path, contents: list[bytes], **options: int) -> list[Path]:
    root.mkdir(exist_ok=True)
    by_name = {name_of(content): content for content in contents}
    return pack(dict.fromkeys(by_name, (8, 8)), by_name.__getitem__, root, **options)


def random_bytes(number: int, *, size: int = 3000) -> bytes:
    block = hashlib.sha256(str(number).encode()).digest()
    return (block * (size // len(block) + 1))[:size]


@pytest.fixture
def contents():
    return [png(shade) for shade in (10, 60, 110, 160)]


def test_a_picture_has_the_same_bytes_and_size_in_both_layouts(tmp_path, contents):
    names = write_folder(tmp_path / "folder", contents)
    write_shards(tmp_path / "shards", contents)
    folder, shards = MediaFiles(tmp_path / "folder"), MediaFiles(tmp_path / "shards")
    assert [folder.read(name) for name in names] == contents
    assert [shards.read(name) for name in names] == contents
    assert [folder.read_size(name) for name in names] == [(8, 8)] * 4
    assert [shards.read_size(name) for name in names] == [(8, 8)] * 4


def test_shards_can_be_read_by_a_process_they_were_sent_to(tmp_path, contents):
    write_shards(tmp_path, contents)
    sent = pickle.loads(pickle.dumps(MediaFiles(tmp_path)))
    assert sent.read(name_of(contents[2])) == contents[2]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("media/../../secret.png", id="upwards"),
        pytest.param("media/a\0.png", id="with a NUL"),
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(png(1))
    (tmp_path / "root/media").mkdir(parents=True)
    media = MediaFiles(tmp_path / "root")
    for use in (media.read, media.read_size):
        with pytest.raises(DataError, match="leads out of"):
            use(name)


@pytest.mark.parametrize(
    "packed", [pytest.param(True, id="shards"), pytest.param(False, id="folder")]
)
def test_one_flipped_bit_is_found(tmp_path, contents, packed):
    names = write_folder(tmp_path / "folder", contents)
    write_shards(tmp_path / "shards", contents)
    root = tmp_path / ("shards" if packed else "folder")
    path = root / ("media-00000.tar" if packed else names[0])
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(contents[0]) + 60 if packed else 60] ^= 1
    path.write_bytes(damaged)
    media = MediaFiles(root)
    with pytest.raises(
        DataError, match=r"is damaged: its name is its digest; .*dvc repro extract"
    ):
        media.read(names[0])
    assert media.read(names[1]) == contents[1]


def test_a_missing_picture_is_named(tmp_path, contents):
    write_folder(tmp_path / "folder", contents)
    with pytest.raises(DataError, match=r"media/no\.png cannot be read: No such file"):
        MediaFiles(tmp_path / "folder").read("media/no.png")
    write_shards(tmp_path / "shards", contents)
    with pytest.raises(DataError, match=r"'media/no\.png' is not listed in .*media\.index\.jsonl"):
        MediaFiles(tmp_path / "shards").read_size("media/no.png")


# ---- shards that somebody tampered with -----------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"offset": 10**6}, "would end behind the end of", id="behind the end"),
        pytest.param({"size": 10**6}, "would end behind the end of", id="too long"),
        pytest.param({"offset": 0}, "would begin before any header", id="before the first"),
        pytest.param({"offset": -5}, "no whole numbers", id="negative"),
        pytest.param({"offset": "512"}, "no whole numbers", id="text for a number"),
        pytest.param({"size": True}, "no whole numbers", id="a truth for a number"),
        pytest.param({"name": "/etc/passwd"}, "leads out of the folder", id="absolute name"),
        pytest.param({"name": "media/../../x.png"}, "leads out of the folder", id="upwards"),
        pytest.param({"name": 7}, "leads out of the folder", id="a number for a name"),
        pytest.param({"shard": "../media-00000.tar"}, "not the name of a shard", id="elsewhere"),
        pytest.param({"shard": "media-00007.tar"}, "No such file", id="no such shard"),
        pytest.param({"more": 1}, "unexpected keyword argument", id="unknown key"),
    ],
)
def test_an_index_that_cannot_be_true_is_refused(tmp_path, contents, change, message):
    write_shards(tmp_path, contents)
    first, *others = (tmp_path / INDEX).read_text().splitlines()
    lines = [json.dumps({**json.loads(first), **change}), *others]
    (tmp_path / INDEX).write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=f"{INDEX}, line 1: .*{message}"):
        MediaFiles(tmp_path)


@pytest.mark.parametrize("line", ["{", "[]", "7", "null"])
def test_an_index_line_that_is_no_object_is_refused(tmp_path, contents, line):
    write_shards(tmp_path, contents)
    (tmp_path / INDEX).write_text(line + "\n")
    with pytest.raises(DataError, match=f"{INDEX}, line 1: "):
        MediaFiles(tmp_path)


def test_a_picture_that_is_listed_twice_is_refused(tmp_path, contents):
    write_shards(tmp_path, contents)
    text = (tmp_path / INDEX).read_text()
    (tmp_path / INDEX).write_text(text + text.splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"line 5: .* is listed twice"):
        MediaFiles(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(tarfile.SYMTYPE, id="symbolic link"),
        pytest.param(tarfile.LNKTYPE, id="hard link"),
        pytest.param(tarfile.CHRTYPE, id="device"),
        pytest.param(tarfile.GNUTYPE_SPARSE, id="sparse file"),
    ],
)
def test_a_member_that_is_no_plain_file_is_refused(tmp_path, contents, kind):
    (shard,) = write_shards(tmp_path, contents)
    first = json.loads((tmp_path / INDEX).read_text().splitlines()[0])
    info = tarfile.TarInfo(first["name"])
    info.type, info.size, info.linkname = kind, first["size"], "/etc/passwd"
    whole = bytearray(shard.read_bytes())
    whole[first["offset"] - 512 : first["offset"]] = info.tobuf(tarfile.USTAR_FORMAT)[:512]
    shard.write_bytes(whole)
    with pytest.raises(DataError, match=r"media-00000\.tar"):
        MediaFiles(tmp_path).read(first["name"])


def test_a_member_of_another_name_is_refused(tmp_path, contents):
    write_shards(tmp_path, contents)
    first, second, *others = map(json.loads, (tmp_path / INDEX).read_text().splitlines())
    first["name"], second["name"] = second["name"], first["name"]
    lines = map(json.dumps, (first, second, *others))
    (tmp_path / INDEX).write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"does not hold .* where media\.index\.jsonl says"):
        MediaFiles(tmp_path).read(first["name"])


# ---- what is written ------------------------------------------------------------------------


def test_a_shard_is_a_plain_tar_of_sorted_files_without_times_and_owners(tmp_path, contents):
    (shard,) = write_shards(tmp_path, contents)
    with tarfile.open(shard) as tar:
        members = tar.getmembers()
        assert [tar.extractfile(one).read() for one in members] == [
            content for _, content in sorted((name_of(c), c) for c in contents)
        ]
    assert [one.name for one in members] == sorted(map(name_of, contents))
    assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in members} == {
        (0, 0, 0, "", 0o644)
    }


def test_equal_pictures_give_equal_bytes(tmp_path, contents):
    for name in ("one", "two"):
        write_shards(tmp_path / name, contents)
    for file in ("media-00000.tar", INDEX):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def pack_numbers(root, numbers):
    contents = [random_bytes(number) for number in numbers]
    shards = write_shards(root, contents, max_bytes=100_000)
    media = MediaFiles(root)
    assert [media.read(name_of(content)) for content in contents] == contents
    assert all(shard.stat().st_size <= 100_000 for shard in shards)
    return [sha256_of_file(shard) for shard in shards]


def test_pictures_behind_the_others_change_the_last_shard_alone(tmp_path):
    before = pack_numbers(tmp_path / "before", range(400))
    after = pack_numbers(tmp_path / "after", range(440))
    assert len(before) > 20
    assert after[: len(before) - 1] == before[:-1]


def test_a_picture_in_between_or_one_less_changes_few_shards(tmp_path):
    before = pack_numbers(tmp_path / "before", range(400))
    for number in range(20):
        place = 7 + 20 * number
        more = pack_numbers(tmp_path / f"more{number}", [*range(place), 999, *range(place, 400)])
        less = pack_numbers(tmp_path / f"less{number}", [n for n in range(400) if n != place])
        for after in (more, less):
            assert len(set(before) - set(after)) <= 3


def test_a_picture_larger_than_a_shard_has_one_of_its_own(tmp_path):
    contents = [random_bytes(0), random_bytes(1, size=150_000), random_bytes(2)]
    write_shards(tmp_path, contents, max_bytes=100_000)
    entries = [json.loads(line) for line in (tmp_path / INDEX).read_text().splitlines()]
    shards = {entry["name"]: entry["shard"] for entry in entries}
    large = shards[name_of(contents[1])]
    assert [entry["shard"] for entry in entries].count(large) == 1
