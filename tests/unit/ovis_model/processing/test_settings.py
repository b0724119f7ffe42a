import json

import pytest

from ovis_model.config import FrameSampling, PixelLimits
from ovis_model.errors import CheckpointError, ConfigError
from ovis_model.processing.settings import ProcessorSettings

SETTINGS = ProcessorSettings(
    "{{ messages }}",
    PixelLimits(single_image_min_pixels=1024, single_image_max_pixels=2048),
    FrameSampling(min_frames=2, max_frames=5),
)


@pytest.fixture
def folder(tmp_path):
    SETTINGS.write(tmp_path)
    return tmp_path


def edit(path, change):
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def test_what_was_written_is_read(folder):
    assert ProcessorSettings.read(folder) == SETTINGS


def test_an_official_folder_means_the_defaults(folder):
    (folder / "ovis_processor.json").unlink()
    read = ProcessorSettings.read(folder)
    assert (read.pixel_limits, read.frame_sampling) == (PixelLimits(), FrameSampling())


def test_a_folder_without_a_chat_template_is_refused(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"has no chat_template\.json; copy it from the base"
    ):
        ProcessorSettings.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", r"chat_template\.json cannot be read \(.*copy it from", id="cut off"),
        pytest.param("[]", r"chat_template\.json holds no JSON object; copy", id="no object"),
        pytest.param("{}", "holds no text under 'chat_template'; copy the file", id="no template"),
    ],
)
def test_an_unreadable_chat_template_is_refused(folder, text, message):
    (folder / "chat_template.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        ProcessorSettings.read(folder)


def test_a_sampler_of_another_release_is_refused(folder):
    edit(folder / "ovis_processor.json", lambda v: v["frame_sampling"].update(name="left_edges"))
    with pytest.raises(
        CheckpointError,
        match="the frame sampler 'left_edges'; this release has only 'uniform_midpoint'",
    ):
        ProcessorSettings.read(folder)


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        ("pixel_limits", "video_max_pixel", "did you mean 'video_max_pixels'"),
        ("frame_sampling", "frames", "unknown key 'frames'"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(folder, section, key, message):
    edit(folder / "ovis_processor.json", lambda v: v[section].update({key: 1}))
    with pytest.raises(ConfigError, match=rf"ovis_processor\.json, {section}: .*{message}"):
        ProcessorSettings.read(folder)
