"""A result is text, knows its parts, and travels."""

import copy
import json
import pickle

import pytest
from PIL import Image

from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.results import GroundingResult, InferenceResult, Usage
from ovis_model.inference.thinking import ParsedOutput

USAGE = Usage(20, 4, 3, 9, 12)
SETTINGS = GenerationSettings(max_new_tokens=40, stop=("END",))
OUTPUT = ParsedOutput("<think>a</think>7", "a", "7", "stop", "natural", 2, 1, 4)


@pytest.fixture
def located():
    def located(answer, request_type="box"):
        output = ParsedOutput(answer, "", answer, "stop", "none", 0, 9, 10)
        image = Image.new("RGB", (40, 50), "navy")
        return GroundingResult.of(output, USAGE, SETTINGS, image=image, request_type=request_type)

    return located


def test_a_result_is_its_text_and_has_parts():
    result = InferenceResult(OUTPUT, USAGE, SETTINGS)
    assert result == result.text == "<think>a</think>7"
    assert type(result.text) is str
    assert (result.thinking, result.answer, result.finish_reason) == ("a", "7", "stop")


@pytest.mark.parametrize(
    ("closed", "truncated"),
    [("natural", False), ("none", False), ("forced", True), ("never", True)],
)
def test_thinking_is_truncated_unless_it_ended_by_itself(closed, truncated):
    output = ParsedOutput("", "", "", "stop", closed, 0, 0, 0)
    assert InferenceResult(output, USAGE, SETTINGS).truncated_thinking is truncated


def test_a_result_is_json_with_its_counts_and_settings():
    values = json.loads(json.dumps(InferenceResult(OUTPUT, USAGE, SETTINGS).to_dict()))
    assert values["answer"] == "7"
    assert values["usage"]["generated_tokens"] == 12
    assert values["settings"]["stop"] == ["END"]
    assert values["truncated_thinking"] is False


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_results_can_be_copied_and_sent(travel, located):
    result = travel(InferenceResult(OUTPUT, USAGE, SETTINGS))
    assert (result, result.answer, result.usage) == (OUTPUT.text, "7", USAGE)
    found = travel(located("<box>(0.1,0.2),(0.5,0.6)</box>"))
    assert found.pixel_boxes == [pytest.approx((4, 10, 20, 30))]


def test_a_grounding_result_speaks_pixels(located):
    result = located("<ref>7</ref><box>(0.1,0.2),(0.5,0.6)</box><point>(0.5,0.5)</point>")
    assert result.pixel_boxes == [pytest.approx((4, 10, 20, 30))]
    assert result.pixel_points == [(20, 25)]
    assert result.overlay().getpixel((4, 20)) == (255, 0, 0)
    assert isinstance(result, InferenceResult)


def test_a_grounding_result_is_json_with_fractions_and_pixels(located):
    values = json.loads(
        json.dumps(located("<box>(0.1,0.2),(1.5,0.6)</box><box>?</box>").to_dict())
    )
    [box] = values["boxes"]
    assert (box["x1"], box["conforms"]) == (0.1, False)
    assert box["pixels"] == pytest.approx([4, 10, 40, 30])
    assert (values["num_malformed"], values["image_size"]) == (1, [40, 50])


def test_a_grounding_result_becomes_a_coco_data_set(located):
    dataset = located("<ref>7</ref><box>(0.1,0.2),(0.5,0.6)</box>").to_coco("digit.png")
    assert dataset["images"][0]["file_name"] == "digit.png"
    assert dataset["categories"] == [{"id": 1, "name": "7"}]
    assert dataset["annotations"][0]["bbox"] == pytest.approx([4, 10, 16, 20])


def test_coordinates_without_tags_are_what_was_asked_for(located):
    assert len(located("[(0.1,0.2),(0.3,0.4)]").boxes) == 1
    assert len(located("[(0.1,0.2),(0.3,0.4)]", "point").points) == 2
