import pytest
from PIL import Image, ImageFile

from ovis_model.data.dataset import ConversationDataset, Extent, check_extents
from ovis_model.data.schema import Sample
from ovis_model.errors import DataError, PlaceholderError
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from tests.support.raw_data import write_clip
from tests.support.tiny_model import build_tiny_checkpoint
from tests.support.training_world import image_sample, text_sample, video_sample


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
        pytest.param({"image": ["media/no.png"]}, r"no\.png cannot be decoded", id="no such file"),
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
