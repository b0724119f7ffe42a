"""Validated samples become samples of plain pictures; each file is decoded once."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovis_model.config import ExtractConfig
from ovis_model.data.extraction import extract
from ovis_model.data.media.images import load_image
from ovis_model.data.media_files import INDEX, MediaFiles
from ovis_model.data.reasons import REASONS
from ovis_model.data.report import ExtractionReport
from ovis_model.data.schema import Sample, read_samples
from ovis_model.errors import DataError
from ovis_model.reports import sha256_of_file, sha256_of_folder
from tests.support.raw_data import sample, write_clip, write_every_kind, write_picture
from tests.support.validated import write_validated
from tests.support.validating import run_validation

CONFIG = ExtractConfig(min_frames=2, max_frames=2, workers=1)


def run(root: Path, config: ExtractConfig = CONFIG) -> ExtractionReport:
    return extract(
        config,
        validated=root / "validated",
        raw_data=root / "raw",
        output=root / "extracted",
        store=root / "store",
        ledger=root / "ledger.jsonl",
    )


def change(config: ExtractConfig = CONFIG, **values: Any) -> ExtractConfig:
    return config.model_copy(update=values)


def read(root: Path, part: str = "train") -> dict[str, Sample]:
    return {s.id: s for s in read_samples(root / f"extracted/{part}.jsonl")}


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def codes(root: Path) -> dict[str, list[str]]:
    """Return what the ledger blames on each sample."""
    return {
        line["id"]: [reason["code"] for reason in line.get("reasons", [])]
        for line in read_lines(root / "ledger.jsonl")
    }


def shades(root: Path, names: Sequence[str]) -> list[int]:
    return [load_image(root / "extracted" / name).getpixel((16, 16))[0] for name in names]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_validated(tmp_path, write_every_kind(tmp_path / "raw"))


def write_many(root: Path, count: int) -> list[dict[str, Any]]:
    for n in range(count):
        write_picture(root / f"raw/many/{n}.png", n)
    return [sample(f"s{n}", "<image>?", "7", image=f"many/{n}.png") for n in range(count)]


def test_every_medium_becomes_a_file_named_by_its_content(world: Path) -> None:
    report = run(world)
    folder = world / "extracted"
    paths = {path for s in read(world).values() for path in s.media}
    for path in paths:
        digest = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        assert path == f"media/{digest[:2]}/{digest}.png"
        assert load_image(folder / path).mode == "RGB"
    assert {p.relative_to(folder).as_posix() for p in folder.glob("media/*/*")} == paths
    # Frames c and e of the list are pictures of other samples too: stored once.
    assert report.model_dump() == {
        "num_samples": {"train": 9, "holdout": 0},
        "num_quarantined": 0,
        "bad_fraction": 0.0,
        "max_bad_fraction": 0.0,
        "num_images": 5,
        "num_videos": 2,
        "num_frames": 4,
        "num_unique_media": 7,
        "media_bytes": sum((folder / path).stat().st_size for path in paths),
        "num_shards": 0,
        "frame_sampling": {"name": "uniform_midpoint", "min_frames": 2, "max_frames": 2},
        "quarantined": [],
    }


def test_what_validation_writes_is_what_extraction_reads(tmp_path: Path) -> None:
    samples = write_every_kind(tmp_path / "raw")
    run_validation(tmp_path, limits={"max_pixels": 50_000})
    run(tmp_path)
    assert set(read(tmp_path)) == {one["id"] for one in samples}


def test_a_video_of_either_form_becomes_a_list_of_sampled_frames(world: Path) -> None:
    run(world)
    samples = read(world)
    # Frames 1 and 4 of six; H.264 is lossy.
    assert shades(world, samples["clip"].frames) == pytest.approx([50, 200], abs=6)
    # Frames 1 and 2 of three, which are pictures of these samples too.
    assert samples["frames"].frames == (samples["several"].image[0], samples["grounding"].image[0])


def test_the_times_of_a_videos_frames_are_kept(world: Path) -> None:
    run(world)
    frames = list(read(world)["clip"].frames)
    assert read_lines(world / "extracted/frames.jsonl") == [
        {"source": "videos/clip.mp4", "frames": frames, "seconds": pytest.approx([0.25, 1.0])}
    ]


def test_text_is_carried_over_unchanged(world: Path) -> None:
    run(world)
    before = {s.id: s.conversations for s in read_samples(world / "validated/train.jsonl")}
    assert {name: s.conversations for name, s in read(world).items()} == before


def test_plain_pictures_are_copied_byte_for_byte(world: Path) -> None:
    run(world)
    copied = world / "extracted" / read(world)["single"].image[0]
    assert copied.read_bytes() == (world / "raw/images/a.png").read_bytes()


def test_odd_pictures_become_plain_ones(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    Image.fromarray(np.full((8, 8), 32768, np.uint16)).save(raw / "grey16.png")
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(raw / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 8)).save(raw / "turned.jpg", exif=exif)
    Image.new("RGB", (8, 8)).save(raw / "plain.jpg")
    names = ("grey16.png", "clear.png", "turned.jpg", "plain.jpg")
    run(write_validated(tmp_path, [sample(name, "<image>?", "7", image=name) for name in names]))
    paths = {name: tmp_path / "extracted" / s.image[0] for name, s in read(tmp_path).items()}
    opened = {name: load_image(path) for name, path in paths.items()}
    assert {image.mode for image in opened.values()} == {"RGB"}
    assert opened["grey16.png"].getpixel((0, 0)) == (128, 128, 128)
    assert opened["clear.png"].getpixel((0, 0)) == (255, 255, 255)
    assert opened["turned.jpg"].size == (8, 16)
    assert [paths[name].suffix for name in names] == [".png", ".png", ".png", ".jpg"]


def test_several_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    samples = [*write_many(tmp_path, 80), *write_every_kind(tmp_path / "raw")]
    write_validated(tmp_path, samples[10:], holdout=samples[:10])
    digests = []
    for workers in (1, 2):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        report = run(tmp_path, change(workers=workers))
        assert report.num_reused == 0
        digests.append((sha256_of_folder(tmp_path / "extracted"), report.model_dump()))
    assert digests[0] == digests[1]


def test_a_store_on_another_disk_is_copied_from(world: Path, monkeypatch) -> None:
    run(world)
    linked = sha256_of_folder(world / "extracted")

    def link(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", link)
    run(world)
    assert sha256_of_folder(world / "extracted") == linked
    assert {path.stat().st_nlink for path in (world / "extracted/media").glob("*/*")} == {1}


def test_the_manifest_keeps_the_sampler_for_training(world: Path) -> None:
    run(world)
    manifest = json.loads((world / "extracted/manifest.json").read_text())
    assert manifest["frame_sampling"] == {
        "name": "uniform_midpoint",
        "min_frames": 2,
        "max_frames": 2,
    }
    for name, rows in (("train.jsonl", 9), ("holdout.jsonl", 0), ("frames.jsonl", 1)):
        digest = sha256_of_file(world / "extracted" / name)
        assert manifest["files"][name] == {"sha256": digest, "rows": rows}


def test_what_an_interrupted_run_left_is_cleared(world: Path) -> None:
    left = world / "extracted.partial/media/aa/half.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    run(world)
    assert not (world / "extracted.partial").exists()
    assert not list((world / "extracted").rglob("half.png"))


# ---- nothing is decoded twice ---------------------------------------------------------------


def test_unchanged_inputs_are_not_decoded_again(world: Path) -> None:
    first = run(world)
    # One file of bytes that another one has, too, is decoded once.
    assert (first.num_decoded, first.num_reused) == (6, 0)
    before = sha256_of_folder(world / "extracted")
    shutil.rmtree(world / "extracted")
    again = run(world)
    assert (again.num_decoded, again.num_reused) == (0, 6)
    assert sha256_of_folder(world / "extracted") == before
    assert again.model_dump() == first.model_dump()
    # What the store knows is what was validated: the raw files are not even opened.
    shutil.rmtree(world / "raw")
    assert run(world).num_decoded == 0


def test_a_new_file_is_the_only_one_that_is_decoded(world: Path) -> None:
    run(world)
    write_picture(world / "raw/images/new.png", 7)
    new = sample("new", "<image>?", "7", image="images/new.png")
    write_validated(world, [new, *write_every_kind(world / "raw")])
    assert run(world).num_decoded == 1


def test_another_number_of_frames_decodes_the_videos_alone(world: Path) -> None:
    run(world)
    # All three files of the list are wanted now, and two of them are known.
    report = run(world, change(min_frames=3, max_frames=3))
    assert (report.num_decoded, report.num_reused) == (1, 5)


def test_a_damaged_picture_in_the_store_is_decoded_again(world: Path) -> None:
    run(world)
    before = sha256_of_folder(world / "extracted")
    # Whoever edits an extracted file may edit the store with it: they are one file by two names.
    (world / "extracted" / read(world)["single"].image[0]).write_bytes(b"edited")
    assert run(world).num_decoded == 1
    assert sha256_of_folder(world / "extracted") == before


RUN = """
import sys
from pathlib import Path
from ovis_model.config import ExtractConfig
from ovis_model.data.extraction import extract
if __name__ == "__main__":
    root = Path(sys.argv[1])
    config = ExtractConfig(min_frames=2, max_frames=2, workers=2)
    paths = {name: root / name for name in ("validated", "output", "store")}
    extract(config, raw_data=root / "raw", **paths)
"""


def test_a_killed_run_is_continued_and_leaves_the_same_bytes(tmp_path: Path) -> None:
    samples = write_many(tmp_path, 150)
    for n in range(12):
        write_clip(tmp_path / f"raw/{n}.mp4", [0, 20 * n, 255], side=256)
        samples.append(sample(f"v{n}", "<video>?", "7", video=f"{n}.mp4"))
    write_validated(tmp_path, samples)
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)], stderr=subprocess.DEVNULL, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("store/index/*/*.json"))) < 10:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "output").exists()
    resumed = run(tmp_path)
    assert resumed.num_reused >= 10
    assert resumed.num_decoded > 0
    assert resumed.num_reused + resumed.num_decoded == 162
    after_kill = sha256_of_folder(tmp_path / "extracted")
    shutil.rmtree(tmp_path / "store")
    undisturbed = run(tmp_path)
    assert undisturbed.num_decoded == 162
    assert sha256_of_folder(tmp_path / "extracted") == after_kill
    assert undisturbed.model_dump() == resumed.model_dump()


# ---- on a cluster ---------------------------------------------------------------------------


@pytest.fixture
def start_dask(tmp_path: Path):
    """Start parts of a real Dask cluster; all of them are ended with the test."""
    started = []

    def start(program: str, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{program}", "--no-dashboard", *options]
        command += ["--scheduler-file", str(tmp_path / "scheduler.json")]
        log = (tmp_path / f"{program}{len(started)}.log").open("wb")
        with log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_cluster_that_loses_a_worker_extracts_the_same_bytes(tmp_path: Path, start_dask) -> None:
    samples = [*write_many(tmp_path, 60), *write_every_kind(tmp_path / "raw")]
    for n in range(6):
        write_clip(tmp_path / f"raw/{n}.mp4", [0, 20 * n, 255], side=512)
        samples.append(sample(f"v{n}", "<video>?", "7", video=f"{n}.mp4"))
    write_validated(tmp_path, samples)
    address_file = tmp_path / "scheduler.json"
    scheduler = start_dask("dask_scheduler", "--host", "127.0.0.1", "--port", "0")
    wait_for(address_file.is_file, scheduler)
    wait_for(lambda: address_file.read_text().endswith("}"), scheduler)
    address = json.loads(address_file.read_text())["address"]
    options = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
    doomed, _ = (start_dask("dask_worker", *options) for _ in range(2))

    def kill_at_the_first_result() -> None:
        wait_for(lambda: any(tmp_path.glob("store/index/*/*.json")), doomed)
        doomed.kill()

    killer = threading.Thread(target=kill_at_the_first_result)
    killer.start()
    report = run(tmp_path, change(dask_scheduler=address, shards=True))
    killer.join()
    assert doomed.wait() == -signal.SIGKILL
    assert report.num_quarantined == 0
    on_cluster = sha256_of_folder(tmp_path / "extracted")
    shutil.rmtree(tmp_path / "store")
    # 72 files, two of which are equal.
    assert run(tmp_path, change(shards=True)).num_decoded == report.num_decoded == 71
    assert sha256_of_folder(tmp_path / "extracted") == on_cluster


# ---- parts of videos, and samples that are made to fit --------------------------------------


def test_two_samples_may_show_two_parts_of_one_video(world: Path) -> None:
    parts = [
        sample("begin", "<video>?", "7", video="videos/clip.mp4", video_end=0.5),
        sample("end", "<video>?", "7", video="videos/clip.mp4", video_start=1.0),
        sample("again", "<video>?", "7", video="videos/clip.mp4", video_start=1.0),
    ]
    write_validated(world, parts)
    report = run(world)
    assert report.num_decoded == 2
    samples = read(world)
    assert shades(world, samples["begin"].frames) == pytest.approx([0, 50], abs=6)
    assert shades(world, samples["end"].frames) == pytest.approx([200, 250], abs=6)
    assert samples["again"].video == samples["end"].video
    assert {(one.video_start, one.video_end) for one in samples.values()} == {(None, None)}
    lines = read_lines(world / "extracted/frames.jsonl")
    assert [(line.get("start"), line.get("end")) for line in lines] == [(None, 0.5), (1.0, None)]
    assert [line["seconds"] for line in lines] == [
        pytest.approx([0, 0.25]),
        pytest.approx([1.0, 1.25]),
    ]


@pytest.mark.parametrize("form", ["file", "frames"])
def test_a_sample_with_fewer_frames_to_fit_has_fewer(world: Path, form: str) -> None:
    video = {
        "file": "videos/clip.mp4",
        "frames": [f"images/{name}.png" for name in "abcde"],
    }[form]
    fitted = [
        sample("one", "<video>?", "7", video=video, fit={"max_frames": 1, "max_tokens": 90}),
        sample("many", "<video>?", "7", video=video, fit={"max_frames": 50}),
        sample("plain", "<video>?", "7", video=video),
    ]
    write_validated(world, fitted)
    run(world, change(min_frames=3, max_frames=4))
    samples = read(world)
    assert {name: len(one.frames) for name, one in samples.items()} == {
        "one": 1,
        "many": 4,
        "plain": 4,
    }
    # What was done is not told to training, which would do it again.
    assert samples["one"].fit.model_dump(exclude_none=True) == {"max_tokens": 90}
    assert samples["many"].fit is None


# ---- files that fail ------------------------------------------------------------------------


def damage(root: Path) -> None:
    """Change one picture of two samples, and cut a clip, behind validation's back."""
    write_picture(root / "raw/images/e.png", 61)


def test_the_samples_of_a_file_that_fails_are_set_aside(world: Path) -> None:
    damage(world)
    report = run(world, change(max_bad_fraction=0.25))
    assert report.num_samples == {"train": 7, "holdout": 0}
    assert report.num_quarantined == 2
    assert report.bad_fraction == pytest.approx(2 / 9)
    why = (
        "file 'images/e.png': it changed after it was validated; run `dvc repro` to validate anew"
    )
    assert [(one.id, one.place, one.reasons) for one in report.quarantined] == [
        ("frames", "train.jsonl, line 5", {"unreadable_media": why}),
        ("grounding", "train.jsonl, line 7", {"unreadable_media": why}),
    ]
    assert set(read(world)) == {"single", "thinking", "several", "clip", "text", "twice", "system"}
    paths = {path for s in read(world).values() for path in s.media}
    assert len(list((world / "extracted").glob("media/*/*"))) == len(paths)


def test_the_ledger_has_every_sample_once(world: Path) -> None:
    samples = write_every_kind(world / "raw")
    write_validated(world, samples[:-1], holdout=samples[-1:])
    damage(world)
    run(world, change(max_bad_fraction=0.25))
    lines = read_lines(world / "ledger.jsonl")
    assert [(line["id"], line["part"]) for line in lines] == [
        *((one["id"], "train") for one in samples[:-1]),
        ("system", "holdout"),
    ]
    assert [line["place"] for line in lines] == [
        *(f"train.jsonl, line {number}" for number in range(1, 9)),
        "holdout.jsonl, line 1",
    ]
    verdicts = {line["id"]: line["verdict"] for line in lines}
    bad = {"frames", "grounding"}
    assert {name for name, verdict in verdicts.items() if verdict == "quarantined"} == bad
    assert {name for name, verdict in verdicts.items() if verdict == "ok"} == set(verdicts) - bad
    assert codes(world)["frames"] == codes(world)["grounding"] == ["unreadable_media"]
    (reason,) = next(line["reasons"] for line in lines if line["id"] == "frames")
    assert reason["detail"].startswith("file 'images/e.png': it changed after it was validated")
    assert reason["remedy"] == REASONS["unreadable_media"].remedy


def test_more_failures_than_allowed_stop_the_step_and_leave_the_ledger(world: Path) -> None:
    run(world)
    shutil.rmtree(world / "store")
    damage(world)
    with pytest.raises(DataError) as caught:
        run(world, change(max_bad_fraction=0.2))
    assert str(caught.value) == (
        "sample 'frames', file 'images/e.png': it changed after it was validated; run `dvc repro` "
        "to validate anew, sample 'grounding', file 'images/e.png': it changed after it was "
        "validated; run `dvc repro` to validate anew. The files of 2 of 9 samples (22.2%) cannot "
        "be extracted, and extract.max_bad_fraction allows 20.0%. What to do about each is in "
        f"{world}/ledger.jsonl. Fix or remove them, or raise extract.max_bad_fraction, then run "
        "`dvc repro` again; what is finished is not done a second time"
    )
    assert not (world / "extracted").exists()
    assert not (world / "extracted.partial").exists()
    assert len(read_lines(world / "ledger.jsonl")) == 9
    # The repaired file is decoded, and nothing else.
    write_picture(world / "raw/images/e.png", 210)
    assert run(world).num_decoded == 1


def test_a_file_that_is_gone_is_named(world: Path) -> None:
    (world / "raw/videos/clip.mp4").unlink()
    with pytest.raises(
        DataError, match=r"^sample 'clip', file 'videos/clip\.mp4': .*No such file"
    ):
        run(world)
    assert codes(world)["clip"] == ["missing_media"]


def test_a_file_that_cannot_be_decoded_does_not_stop_the_others(tmp_path: Path) -> None:
    samples = write_many(tmp_path, 70)
    cut = tmp_path / "raw/many/33.png"
    cut.write_bytes(cut.read_bytes()[:60])
    write_validated(tmp_path, samples)
    report = run(tmp_path, change(workers=2, max_bad_fraction=0.02))
    assert [(one.id, list(one.reasons)) for one in report.quarantined] == [
        ("s33", ["unreadable_media"])
    ]
    assert report.num_samples["train"] == 69
    assert str(tmp_path) not in json.dumps(report.model_dump())


def test_a_sample_that_names_a_bad_file_twice_counts_once(tmp_path: Path) -> None:
    samples = write_many(tmp_path, 4)
    both = ["many/1.png", "many/1.png", "many/2.png"]
    samples.append(sample("both", "<image><image><image>?", "7", image=both))
    write_validated(tmp_path, samples)
    for n in (1, 2):
        (tmp_path / f"raw/many/{n}.png").write_bytes(b"other")
    report = run(tmp_path, change(max_bad_fraction=0.6))
    assert report.num_quarantined == 3
    assert [one.id for one in report.quarantined] == ["s1", "s2", "both"]


def test_a_limit_of_validation_holds_here_too(tmp_path: Path) -> None:
    write_validated(tmp_path, write_many(tmp_path, 2), limits={"max_pixels": 1000})
    with pytest.raises(DataError, match=r"many/0\.png.* 32 x 32"):
        run(tmp_path)
    assert codes(tmp_path) == {"s0": ["too_many_pixels"], "s1": ["too_many_pixels"]}


def test_it_is_an_error_if_no_sample_is_left(tmp_path: Path) -> None:
    samples = write_many(tmp_path, 3)
    write_validated(tmp_path, samples[:1], holdout=samples[1:])
    (tmp_path / "raw/many/0.png").unlink()
    with pytest.raises(DataError, match=r"allows 50\.0%, but none is left to train on"):
        run(tmp_path, change(max_bad_fraction=0.5))


def test_a_store_that_cannot_be_written_stops_the_run(world: Path) -> None:
    (world / "store").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"^pictures cannot be written to .*store: .*make room"):
        run(world)


def test_validated_data_that_somebody_edited_is_refused(world: Path) -> None:
    with (world / "validated/train.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match=r"train\.jsonl is not what validation wrote"):
        run(world)


def test_missing_validated_data_names_the_step_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json is missing or unreadable .*dvc repro"):
        run(tmp_path)


# ---- shards ---------------------------------------------------------------------------------


def test_shards_hold_the_pictures_of_the_folder(world: Path) -> None:
    loose = run(world)
    folder = MediaFiles(world / "extracted")
    names = [path for s in read(world).values() for path in s.media]
    contents = [folder.read(name) for name in names]
    sizes = [folder.read_size(name) for name in names]
    lines = (world / "extracted/train.jsonl").read_bytes()
    packed = run(world, change(shards=True))
    assert (world / "extracted/train.jsonl").read_bytes() == lines
    shards = MediaFiles(world / "extracted")
    assert [shards.read(name) for name in names] == contents
    assert [shards.read_size(name) for name in names] == sizes
    assert not (world / "extracted/media").exists()
    assert packed.num_shards == 1
    assert packed.model_dump(exclude={"num_shards"}) == loose.model_dump(exclude={"num_shards"})


def test_the_manifest_lists_shards_and_index(world: Path) -> None:
    run(world, change(shards=True))
    manifest = json.loads((world / "extracted/manifest.json").read_text())
    index, shard = world / "extracted" / INDEX, world / "extracted/media-00000.tar"
    assert manifest["files"][INDEX] == {"sha256": sha256_of_file(index), "rows": 7}
    assert manifest["shards"] == {
        shard.name: {"sha256": sha256_of_file(shard), "bytes": shard.stat().st_size}
    }


def test_packing_twice_gives_the_same_bytes(world: Path) -> None:
    digests = []
    for workers in (1, 2):
        shutil.rmtree(world / "store", ignore_errors=True)
        run(world, change(shards=True, workers=workers))
        digests.append(sha256_of_folder(world / "extracted"))
    assert digests[0] == digests[1]


def test_nothing_written_depends_on_the_clock_or_on_where_it_is(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "another folder"):
        root = tmp_path / name
        write_validated(root, write_every_kind(root / "raw"))
        os.utime(root / "raw/images/a.png", (1, 1))
        report = run(root)
        digests.append((sha256_of_folder(root / "extracted"), report.model_dump()))
    assert digests[0] == digests[1]
