"""One sample as training sees it; `ovis data` tests compare it with training itself."""

import pytest

from ovis_model.data.checks.xray import XRay, find_sample
from ovis_model.data.schema import parse_sample, write_samples
from ovis_model.errors import DataError
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from tests.support.raw_data import sample, write_clip, write_picture
from tests.support.tiny_model import build_tiny_checkpoint


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return Ovis2_5Processor.from_pretrained(build_tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


def parsed(*texts, **media):
    return parse_sample(sample("s", *texts, **media))


def test_a_sample_is_found_on_either_side(tmp_path):
    write_samples(tmp_path / "train.jsonl", [parsed("?", "1")])
    other = parse_sample(sample("other", "?", "2"))
    write_samples(tmp_path / "holdout.jsonl", [other])
    assert find_sample(tmp_path, "s") == (parsed("?", "1"), "train")
    assert find_sample(tmp_path, "other") == (other, "holdout")
    assert find_sample(tmp_path, "nobody") is None


def test_files_are_described_and_bad_ones_say_why(tmp_path, processor):
    path = write_picture(tmp_path / "a.png", 10, side=48)
    (tmp_path / "b.png").write_bytes(b"no picture")
    xray = XRay(tmp_path, processor)
    names = ["a.png", "b.png", "none.png", "../out.png"]
    look = xray.look(parsed("<image>" * 4, "1", image=names))
    good, broken, missing, outside = look.media
    assert (good.size, good.num_bytes, good.problem) == ((48, 48), path.stat().st_size, None)
    assert broken.problem
    assert missing.problem
    assert "leads out of" in outside.problem
    assert look.num_tokens is None
    assert look.note
    assert xray.areas == {"a.png": 48 * 48}


def test_only_the_shown_part_of_a_video_counts(tmp_path, processor):
    write_clip(tmp_path / "a.mp4", [0, 50, 100, 150, 200, 250])
    xray = XRay(tmp_path, processor)
    whole = parsed("<video>?", "1", video="a.mp4")
    assert xray.look(whole).media[0].num_frames == 6
    late = whole.model_copy(update={"video_start": 9.0, "video_end": 10.0})
    with pytest.raises(DataError, match=r"a\.mp4 has no frames in the part that is shown"):
        xray.measure(late)
    assert xray.measure(whole) > (0, 0)


def test_text_and_media_that_disagree_are_an_error_to_measure_and_a_note_to_look_at(
    tmp_path, processor
):
    xray = XRay(tmp_path, processor)
    with pytest.raises(DataError, match=r"1 <image> placeholder\(s\)"):
        xray.measure(parsed("<image>?", "1"))
    look = xray.look(parsed("<image>?", "1"))
    assert "1 <image> placeholder(s)" in look.note
    assert look.mask[-1].kind == "supervised"


def test_without_a_processor_nothing_is_counted(tmp_path):
    xray = XRay(tmp_path, None)
    look = xray.look(parsed("?", "1"))
    assert (look.num_tokens, look.note) == (None, "there is no processor to count with")
    with pytest.raises(ValueError, match="give one"):
        xray.measure(parsed("?", "1"))
