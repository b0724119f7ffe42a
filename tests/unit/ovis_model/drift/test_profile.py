"""A profile is drawn by seed, measures pictures and frames alike, and gives no text away."""

import json

import pytest
from PIL import Image

from ovis_model.data.media_files import MediaFiles
from ovis_model.data.schema import Sample, parse_sample
from ovis_model.drift.pictures import look_at
from ovis_model.drift.profile import measure, read_profile
from ovis_model.errors import DataError
from tests.support.drifting import draw_profile, draw_samples
from tests.support.raw_data import sample, write_clip, write_picture


def text_sample(number):
    return parse_sample(sample(f"s{number}", "Secret question?", f"secret {number}"))


def test_pictures_are_measured_in_the_units_that_are_named(tmp_path):
    picture = Image.new("RGB", (40, 20), (255, 0, 0))
    picture.paste((0, 0, 0), (0, 0, 20, 20))
    picture.save(tmp_path / "a.png")
    found = look_at(
        parse_sample(sample("1", "<image>?", "a", image="a.png")), MediaFiles(tmp_path)
    )
    assert found.tiny == ("00" * 4 + "4c" * 4) * 8
    assert found.numbers == pytest.approx(
        {
            "width": 40,
            "height": 20,
            "aspect": 2,
            "brightness": 38,  # half of red's grey, 76
            "contrast": 38,
            "saturation": 127.5,
            # 20 steps of 76 among 39 x 20 neighbours to the side and 40 x 19 above
            "sharpness": 20 * 76 / (39 * 20 + 40 * 19),
        }
    )


def test_a_huge_picture_is_reduced_and_its_size_is_not(tmp_path):
    write_picture(tmp_path / "a.png", 100, side=1200)
    one = parse_sample(sample("1", "<image>?", "a", image="a.png"))
    found = look_at(one, MediaFiles(tmp_path)).numbers
    small = write_picture(tmp_path / "b.png", 100, side=240).name
    other = look_at(one.model_copy(update={"image": (small,)}), MediaFiles(tmp_path)).numbers
    assert found["width"] == 1200
    assert found["brightness"] == pytest.approx(other["brightness"], abs=0.5)


def test_a_video_file_measures_as_its_frames_do(tmp_path):
    shades = [20, 60, 100, 140, 180, 220]
    write_clip(tmp_path / "clip.mp4", shades)
    names = [f"{shade}.png" for shade in shades]
    for name, shade in zip(names, shades, strict=True):
        Image.new("RGB", (32, 32), (shade,) * 3).save(tmp_path / name)
    media = MediaFiles(tmp_path)
    file = look_at(parse_sample(sample("1", "<video>?", "a", video="clip.mp4")), media).numbers
    frames = look_at(parse_sample(sample("1", "<video>?", "a", video=names)), media).numbers
    assert file["brightness"] == pytest.approx(frames["brightness"], abs=3)


def test_samples_are_drawn_evenly_and_the_same_ones_every_time(tmp_path):
    samples = [text_sample(number) for number in range(300)]
    media = MediaFiles(tmp_path)
    draws = [
        measure(samples, media, data="x", max_samples=30, seed=seed).categories["answer"].labels
        for seed in range(20)
    ]
    again = measure(samples, media, data="x", max_samples=30, seed=0)
    assert again.categories["answer"].labels == draws[0] != draws[1]
    assert again.num_samples == 300
    drawn_once = {label for labels in draws for label in labels}
    # 20 draws of a tenth leave out 0.9^20 of all: 36 samples
    assert 240 < len(drawn_once) < 290


def test_a_profile_that_was_written_is_read_back(tmp_path):
    profile = draw_profile(tmp_path, 20, seed=0)
    profile.write_compact(tmp_path / "profile.json")
    read = read_profile(tmp_path / "profile.json")
    assert read.digest == profile.digest
    assert read.model_dump() == profile.model_dump()


def test_a_profile_has_no_word_of_the_data(tmp_path):
    profile = measure(map(text_sample, range(5)), MediaFiles(tmp_path), data="x")
    profile.write_compact(tmp_path / "profile.json")
    assert "secret" not in (tmp_path / "profile.json").read_text().casefold()
    assert "secret 3" in profile.words.values()


def test_samples_with_the_same_first_picture_are_one_group(tmp_path):
    samples = draw_samples(tmp_path, 3, seed=0)
    twin = samples[0].model_copy(update={"id": "twin"})
    assert measure([*samples, twin], MediaFiles(tmp_path), data="x").groups == [0, 1, 2, 0]


def test_a_picture_that_cannot_be_read_is_counted_and_the_text_measured(tmp_path):
    samples = draw_samples(tmp_path, 3, seed=0)
    (tmp_path / samples[1].image[0]).write_bytes(b"no picture")
    profile = measure(samples, MediaFiles(tmp_path), data="x")
    assert profile.num_unreadable == 1
    assert profile.numbers["brightness"][1] is None
    assert profile.numbers["question_characters"][1] > 0


def test_pictures_none_of_which_is_there_are_an_error_that_names_the_option(tmp_path):
    samples = draw_samples(tmp_path, 3, seed=0)
    with pytest.raises(DataError, match=r"no picture below .*elsewhere can be read.*--media"):
        measure(samples, MediaFiles(tmp_path / "elsewhere"), data="x")


def test_nothing_to_measure_is_an_error(tmp_path):
    with pytest.raises(DataError, match="there are no samples to measure"):
        measure(list[Sample](), MediaFiles(tmp_path), data="x")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"format": 2}, id="of another format"),
        pytest.param({"groups": [0]}, id="with columns of different lengths"),
        pytest.param({"numbers": {}}, id="without a feature"),
        pytest.param({"tiny": ["00", "00"]}, id="with a picture of another size"),
        pytest.param({"more": 1}, id="with a key too many"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path, change):
    profile = draw_profile(tmp_path, 2, seed=0)
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({**profile.model_dump(mode="json"), **change}))
    with pytest.raises(DataError, match=r"profile.json is no profile of format 1"):
        read_profile(path)


def test_a_label_that_is_not_there_is_refused(tmp_path):
    values = draw_profile(tmp_path, 2, seed=0).model_dump(mode="json")
    values["categories"]["kind"]["codes"] = [0, 5]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match="is no profile"):
        read_profile(path)


def test_a_missing_profile_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.json is missing"):
        read_profile(tmp_path / "nowhere.json")
