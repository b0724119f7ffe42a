import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovis_model.config import ExtractConfig, ValidateConfig
from ovis_model.data.extraction import extract
from ovis_model.data.images import load_image
from ovis_model.data.report import ExtractionReport
from ovis_model.data.schema import Sample, read_samples
from ovis_model.data.validation import validate
from ovis_model.errors import DataError
from ovis_model.reports import sha256_of_folder
from tests.support.raw_data import sample, write_annotations, write_every_kind, write_picture

CONFIG = ExtractConfig(min_frames=2, max_frames=2, workers=1)


def prepare(root: Path) -> Path:
    validate(
        ValidateConfig(raw_data=str(root / "raw"), holdout_fraction=0.0),
        raw_data=root / "raw",
        output=root / "validated",
        report=root / "validate.json",
        data_docs=root / "docs",
    )
    return root


def run(root: Path, config: ExtractConfig = CONFIG) -> ExtractionReport:
    return extract(
        config, validated=root / "validated", raw_data=root / "raw", output=root / "extracted"
    )


def read(root: Path) -> dict[str, Sample]:
    return {s.id: s for s in read_samples(root / "extracted/train.jsonl")}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_every_kind(tmp_path / "raw")
    return prepare(tmp_path)


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
        "num_images": 5,
        "num_videos": 2,
        "num_frames": 4,
        "num_unique_media": 7,
        "media_bytes": sum((folder / path).stat().st_size for path in paths),
        "frame_sampling": {"name": "uniform_midpoint", "min_frames": 2, "max_frames": 2},
    }


def test_a_video_of_either_form_becomes_a_list_of_sampled_frames(world: Path) -> None:
    run(world)
    samples = read(world)
    shades = [
        load_image(world / "extracted" / path).getpixel((16, 16))[0]
        for path in samples["clip"].frames
    ]
    # Frames 1 and 4 of six; H.264 is lossy.
    assert shades == pytest.approx([50, 200], abs=6)
    # Frames 1 and 2 of three, which are pictures of these samples too.
    assert samples["frames"].frames == (samples["several"].image[0], samples["grounding"].image[0])


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
    write_annotations(raw, [sample(name, "<image>?", "7", image=name) for name in names])
    run(prepare(tmp_path))
    paths = {name: tmp_path / "extracted" / s.image[0] for name, s in read(tmp_path).items()}
    opened = {name: load_image(path) for name, path in paths.items()}
    assert {image.mode for image in opened.values()} == {"RGB"}
    assert opened["grey16.png"].getpixel((0, 0)) == (128, 128, 128)
    assert opened["clear.png"].getpixel((0, 0)) == (255, 255, 255)
    assert opened["turned.jpg"].size == (8, 16)
    assert [paths[name].suffix for name in names] == [".png", ".png", ".png", ".jpg"]


def test_several_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    write_every_kind(tmp_path / "raw")
    more = []
    for n in range(80):
        write_picture(tmp_path / f"raw/more/{n}.png", n)
        more.append(sample(f"more{n}", "<image>?", "7", image=f"more/{n}.png"))
    write_annotations(tmp_path / "raw", [*more, *write_every_kind(tmp_path / "raw")])
    prepare(tmp_path)
    digests = []
    for workers in (1, 2):
        run(tmp_path, CONFIG.model_copy(update={"workers": workers}))
        digests.append(sha256_of_folder(tmp_path / "extracted"))
    assert digests[0] == digests[1]


def test_the_manifest_keeps_the_sampler_for_training(world: Path) -> None:
    run(world)
    manifest = json.loads((world / "extracted/manifest.json").read_text())
    assert manifest["frame_sampling"] == {
        "name": "uniform_midpoint",
        "min_frames": 2,
        "max_frames": 2,
    }
    assert manifest["files"]["train.jsonl"]["rows"] == 9


def test_what_an_interrupted_run_left_is_cleared(world: Path) -> None:
    left = world / "extracted.partial/media/aa/half.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    run(world)
    assert not (world / "extracted.partial").exists()
    assert not list((world / "extracted").rglob("half.png"))


def test_a_file_that_changed_since_validation_is_named(world: Path) -> None:
    run(world)
    write_picture(world / "raw/images/b.png", 61)
    with pytest.raises(DataError) as caught:
        run(world)
    assert str(caught.value) == (
        "sample 'thinking', file 'images/b.png': it changed after it was validated; "
        "run `dvc repro` to validate anew"
    )
    assert not (world / "extracted").exists()


def test_a_file_that_is_gone_is_named(world: Path) -> None:
    (world / "raw/videos/clip.mp4").unlink()
    with pytest.raises(DataError, match=r"^sample 'clip', file 'videos/clip\.mp4': .*No such"):
        run(world)


def test_an_error_in_a_worker_process_is_the_same_error(tmp_path: Path) -> None:
    for n in range(70):
        write_picture(tmp_path / f"raw/{n}.png", n)
    samples = [sample(f"s{n}", "<image>?", "7", image=f"{n}.png") for n in range(70)]
    write_annotations(tmp_path / "raw", samples)
    prepare(tmp_path)
    (tmp_path / "raw/33.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^sample 's33', file '33\.png': it changed"):
        run(tmp_path, CONFIG.model_copy(update={"workers": 2}))


def test_validated_data_that_somebody_edited_is_refused(world: Path) -> None:
    with (world / "validated/train.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match=r"train\.jsonl is not what validation wrote"):
        run(world)


def test_missing_validated_data_names_the_step_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json is missing or unreadable .*dvc repro"):
        run(tmp_path)
