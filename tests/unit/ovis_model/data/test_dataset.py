import json
import os
import shutil
from dataclasses import astuple

import pytest
import torch
from PIL import Image, ImageFile
from torch.utils.data import DataLoader

from ovis_model.config import ExtractConfig, PixelLimits
from ovis_model.data.dataset import ConversationDataset, Extent, check_extents
from ovis_model.data.extraction import extract
from ovis_model.data.media_files import INDEX
from ovis_model.data.schema import Sample
from ovis_model.errors import DataError, PlaceholderError
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.training.inputs import read_extracted
from tests.support.raw_data import write_clip, write_every_kind
from tests.support.tiny_model import build_tiny_checkpoint
from tests.support.training_world import image_sample, text_sample, video_sample
from tests.support.validated import write_validated


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return Ovis2_5Processor.from_pretrained(build_tiny_checkpoint(tmp_path_factory.mktemp("m")))


@pytest.fixture
def media_root(tmp_path):
    (tmp_path / "media").mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (40, 36), colour).save(tmp_path / "media" / f"{colour}.png")
    return tmp_path


@pytest.fixture
def dataset(media_root, processor):
    def build(*samples, cache=False):
        parsed = [Sample.model_validate(sample) for sample in samples]
        return ConversationDataset(parsed, media_root=media_root, processor=processor, cache=cache)

    return build


def test_pictures_frames_and_plain_text_are_encoded_under_their_names(dataset):
    examples = list(
        map(dataset(image_sample(0), video_sample(1), text_sample(2)).__getitem__, range(3))
    )
    assert [example.sample_id for example in examples] == ["image_0", "video_1", "text_2"]
    picture, video, text = (example.encoded for example in examples)
    assert picture.grid_thws.tolist() == [[1, 2, 2]]
    assert video.grid_thws.tolist() == [[2, 2, 2]]
    assert text.pixel_values is None


def test_a_cached_sample_is_encoded_once_and_survives_its_file(dataset, media_root):
    samples = dataset(image_sample(0), cache=True)
    first = samples[0]
    (media_root / "media" / "red.png").unlink()
    assert samples[0] is first


def test_extents_count_text_and_visual_positions(dataset):
    samples = dataset(image_sample(0), text_sample(1))
    picture, text = samples.extents()
    assert picture.num_tokens == len(samples[0].encoded.input_ids)
    assert (picture.is_multimodal, text.is_multimodal) == (True, False)
    assert 0 < text.num_supervised < text.num_tokens


def test_extents_are_exact_and_decode_no_picture(dataset, media_root, monkeypatch):
    wide = Image.new("RGB", (130, 60))
    exif = Image.Exif()
    exif[0x0112] = 8
    wide.save(media_root / "media" / "turned.jpg", exif=exif)
    samples = dataset(
        image_sample(0),
        {**image_sample(1), "image": ["media/turned.jpg"]},
        video_sample(2),
        text_sample(3),
    )
    encoded = [example.encoded for example in map(samples.__getitem__, range(4))]
    expected = [(len(e.input_ids), int((e.labels != -100).sum())) for e in encoded]

    def decode(image):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    found = samples.extents()
    assert [(one.num_tokens, one.num_supervised) for one in found] == expected
    assert [one.is_multimodal for one in found] == [True, True, True, False]
    grids = [[] if e.grid_thws is None else e.grid_thws.tolist() for e in encoded]
    assert [[list(grid) for grid in one.grids] for one in found] == grids


def test_extents_of_a_cached_dataset_fill_it(dataset, media_root):
    samples = dataset(image_sample(0), video_sample(1), cache=True)
    plain = dataset(image_sample(0), video_sample(1)).extents()
    assert samples.extents() == plain
    for path in (media_root / "media").iterdir():
        path.unlink()
    assert len(samples[1].encoded.input_ids) == plain[1].num_tokens


def test_extents_of_a_video_file_come_from_its_frames(dataset, media_root):
    write_clip(media_root / "media" / "clip.mp4", [0, 128, 255])
    samples = dataset({**video_sample(0), "video": "media/clip.mp4"})
    assert samples.extents()[0].num_tokens == len(samples[0].encoded.input_ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"image": []}, "the text has 1 <image>", id="placeholder without image"),
        pytest.param({"image": ["media/no.png"]}, r"no\.png cannot be", id="no such file"),
        pytest.param({"video": ["media/red.png"]}, "never both", id="images and a video"),
    ],
)
def test_measuring_blames_the_same_samples_as_encoding(dataset, change, message):
    samples = dataset({**image_sample(0), **change})
    for use in (samples.extents, lambda: samples[0]):
        with pytest.raises(DataError, match=f"^sample 'image_0': .*{message}"):
            use()


def test_frames_of_different_size_are_found_before_training(dataset, media_root):
    Image.new("RGB", (36, 40)).save(media_root / "media" / "blue.png")
    with pytest.raises(DataError, match=r"^sample 'video_0': frame 2 of the video is 36 x 40 px"):
        dataset(video_sample(0)).extents()


def test_a_missing_file_is_blamed_on_its_sample(dataset):
    with pytest.raises(DataError, match=r"^sample 'image_3': .*white\.png"):
        dataset(image_sample(3))[0]


def test_a_placeholder_too_many_is_blamed_on_its_sample(dataset):
    sample = {**image_sample(0), "image": []}
    with pytest.raises(PlaceholderError, match="sample 'image_0': the text has 1 <image>"):
        dataset(sample)[0]


def test_a_length_at_the_limit_passes_and_one_above_is_refused():
    sample = Sample.model_validate(image_sample(0))
    limits = {"multimodal_max_length": 100, "text_max_length": 50}
    check_extents([sample], [Extent(100, 1, is_multimodal=True)], **limits)
    check_extents([sample], [Extent(50, 1, is_multimodal=False)], **limits)
    with pytest.raises(
        DataError, match=r"1 sample\(s\) are longer .* image_0 \(101 tokens, limit"
    ):
        check_extents([sample], [Extent(101, 1, is_multimodal=True)], **limits)
    with pytest.raises(DataError, match="limit 50"):
        check_extents([sample], [Extent(51, 1, is_multimodal=False)], **limits)


def test_both_findings_are_told_at_once():
    samples = [Sample.model_validate(image_sample(n)) for n in range(2)]
    extents = [Extent(9, 1, is_multimodal=True), Extent(3, 0, is_multimodal=True)]
    with pytest.raises(DataError, match=r"longer .* image_0 .*; 1 .* no answer .*: image_1"):
        check_extents(samples, extents, multimodal_max_length=8, text_max_length=8)


# ---- samples that are made to fit -----------------------------------------------------------


WIDE = {"image": ["media/wide.png"]}
ROOMY = PixelLimits(
    single_image_min_pixels=64 * 64,
    single_image_max_pixels=256 * 256,
    multiple_image_min_pixels=64 * 64,
    multiple_image_max_pixels=256 * 256,
    video_min_pixels=64 * 64,
    video_max_pixels=256 * 256,
)


@pytest.fixture
def roomy(media_root, processor):
    """Build data sets whose pictures are large and may stay so."""
    for colour in ("red", "blue", "wide"):
        Image.new("RGB", (256, 192), colour.replace("wide", "grey")).save(
            media_root / "media" / f"{colour}.png"
        )

    def build(*samples, cache=False):
        parsed = [Sample.model_validate(sample) for sample in samples]
        return ConversationDataset(
            parsed,
            media_root=media_root,
            processor=processor.with_settings(pixel_limits=ROOMY),
            cache=cache,
        )

    return build


def lengths(dataset):
    encoded = [dataset[index].encoded for index in range(len(dataset))]
    return [(len(e.input_ids), int((e.labels != -100).sum())) for e in encoded]


def measured(dataset):
    return [(one.num_tokens, one.num_supervised) for one in dataset.extents()]


def test_a_sample_with_fewer_pixels_to_fit_has_smaller_pictures(roomy):
    fit = {"fit": {"max_pixels": 128 * 128}}
    samples = roomy(
        {**image_sample(0), **WIDE},
        {**image_sample(1), **WIDE, **fit},
        {**video_sample(2), **fit},
        {**image_sample(3), **WIDE, "fit": {"max_pixels": 10**9}},
    )
    assert [samples[n].encoded.grid_thws.tolist() for n in range(4)] == [
        [[1, 12, 16]],
        [[1, 6, 8]],
        [[2, 6, 8]],
        [[1, 12, 16]],
    ]
    assert measured(samples) == lengths(samples)


def test_fewer_pixels_than_the_smallest_area_lower_that_too(roomy):
    samples = roomy({**image_sample(0), **WIDE, "fit": {"max_pixels": 32 * 32}})
    assert samples[0].encoded.grid_thws.tolist() == [[1, 2, 2]]
    assert measured(samples) == lengths(samples)


def test_a_sample_that_is_cut_to_fit_keeps_its_beginning(roomy):
    whole = {**image_sample(0), **WIDE}
    (full,) = lengths(roomy(whole))
    for cut in (full[0] - 1, full[0] - 4):
        samples = roomy({**whole, "fit": {"max_tokens": cut}})
        encoded = samples[0].encoded
        assert len(encoded.input_ids) == cut
        assert torch.equal(encoded.input_ids, roomy(whole)[0].encoded.input_ids[:cut])
        assert encoded.grid_thws.tolist() == [[1, 12, 16]]
        assert measured(samples) == lengths(samples) == [(cut, full[1] - (full[0] - cut))]


def test_a_picture_is_never_cut_in_half(roomy):
    whole = {**image_sample(0), **WIDE}
    (full,) = lengths(roomy(whole))
    samples = roomy({**whole, "fit": {"max_tokens": 20}})
    assert full[0] > 40
    encoded = samples[0].encoded
    assert encoded.pixel_values is None
    assert (encoded.input_ids >= 0).all()
    (extent,) = samples.extents()
    assert (extent.num_tokens, extent.num_supervised) == lengths(samples)[0]
    assert not extent.is_multimodal


def test_a_limit_that_is_not_reached_changes_nothing_and_decodes_nothing(roomy, monkeypatch):
    whole = {**image_sample(0), **WIDE}
    (full,) = lengths(roomy(whole))
    samples = roomy({**whole, "fit": {"max_tokens": full[0]}})
    assert lengths(samples) == [full]

    def decode(image):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    assert measured(samples) == [full]


def test_what_makes_a_sample_fit_is_kept_in_a_cache_too(roomy):
    fit = {"fit": {"max_pixels": 128 * 128, "max_tokens": 30}}
    samples = [{**image_sample(0), **WIDE, **fit}, text_sample(1)]
    assert measured(roomy(*samples, cache=True)) == measured(roomy(*samples))


def test_a_video_file_is_shown_in_part_and_with_fewer_frames(dataset, media_root):
    write_clip(media_root / "media" / "clip.mp4", [0, 0, 0, 255, 255, 255])
    base = {**video_sample(0), "video": "media/clip.mp4"}
    samples = dataset(
        {**base, "fit": {"max_frames": 1}},
        {**base, "video_end": 0.75},
        {**base, "video_start": 0.75},
    )
    assert samples[0].encoded.grid_thws[0, 0] == 1
    dark, bright = (samples[n].encoded.pixel_values.float().mean() for n in (1, 2))
    assert dark < 20
    assert bright > 235


# ---- pictures in shards ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Extract the same samples into a folder of files and into shards."""
    root = tmp_path_factory.mktemp("extracted")
    samples = write_every_kind(root / "raw")
    write_validated(root, samples[2:], holdout=samples[:2])
    for shards in (False, True):
        extract(
            ExtractConfig(min_frames=2, max_frames=2, workers=1, shards=shards),
            validated=root / "validated",
            raw_data=root / "raw",
            output=root / ("shards" if shards else "files"),
            store=root / "store",
        )
    return root


def examples_of(folder, processor):
    inputs = read_extracted(folder)
    for samples in (inputs.train, inputs.holdout):
        dataset = ConversationDataset(samples, media_root=inputs.media_root, processor=processor)
        yield from zip(
            dataset.extents(), map(dataset.__getitem__, range(len(dataset))), strict=True
        )


def test_training_reads_the_same_from_shards_as_from_files(extracted, processor):
    pairs = list(
        zip(
            examples_of(extracted / "files", processor),
            examples_of(extracted / "shards", processor),
            strict=True,
        )
    )
    assert len(pairs) == 9
    for (extent, example), (packed_extent, packed) in pairs:
        assert (extent, example.sample_id) == (packed_extent, packed.sample_id)
        for one, other in zip(astuple(example.encoded), astuple(packed.encoded), strict=True):
            assert (one is None and other is None) or torch.equal(one, other)
    assert sum(example.encoded.pixel_values is not None for (_, example), _ in pairs) == 6


def test_worker_processes_read_shards(extracted, processor):
    inputs = read_extracted(extracted / "shards")
    dataset = ConversationDataset(inputs.train, media_root=inputs.media_root, processor=processor)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
    lengths = [len(example.encoded.input_ids) for example in loader]
    assert lengths == [len(dataset[n].encoded.input_ids) for n in range(len(dataset))]


@pytest.fixture
def shards(extracted, tmp_path):
    return shutil.copytree(extracted / "shards", tmp_path / "shards")


def test_an_index_that_somebody_edited_is_refused(shards):
    with (shards / INDEX).open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match=r"media\.index\.jsonl is not the file its manifest"):
        read_extracted(shards)


def test_a_shard_that_is_cut_off_or_gone_is_found_before_training(shards):
    shard = shards / "media-00000.tar"
    size = shard.stat().st_size
    os.truncate(shard, 100)
    with pytest.raises(DataError, match=rf"00000\.tar has 100 bytes, its manifest says {size}"):
        read_extracted(shards)
    shard.unlink()
    with pytest.raises(DataError, match=rf"00000\.tar has no bytes, its manifest says {size}"):
        read_extracted(shards)


def test_a_picture_that_changed_after_extraction_is_blamed_on_its_sample(shards, processor):
    inputs = read_extracted(shards)
    (sample,) = (one for one in inputs.holdout if one.id == "single")
    index = [json.loads(line) for line in (shards / INDEX).read_text().splitlines()]
    (entry,) = (one for one in index if one["name"] == sample.image[0])
    with (shards / entry["shard"]).open("r+b") as file:
        file.seek(entry["offset"] + 50)
        byte = file.read(1)[0]
        file.seek(entry["offset"] + 50)
        file.write(bytes([byte ^ 1]))
    dataset = ConversationDataset([sample], media_root=shards, processor=processor)
    with pytest.raises(DataError, match=r"^sample 'single': .* is damaged"):
        dataset[0]
