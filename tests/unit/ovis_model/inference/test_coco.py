"""Boxes and points become a COCO data set in pixels."""

import json

import pytest

from ovis_model.inference.coco import GroundedImage, to_coco
from ovis_model.inference.grounding import Box, Grounding, Point

CATS = Grounding(boxes=(Box(0.1, 0.2, 0.3, 0.4, "cat"), Box(0.6, 0.5, 0.5, 1.5, "dog")))
POINT = Grounding(boxes=(Box(0, 0, 1, 1, "dog"),), points=(Point(0.5, 0.25),))


@pytest.fixture
def dataset():
    images = [GroundedImage("a.png", 100, 200, CATS), GroundedImage("b.png", 40, 40, POINT)]
    return to_coco(images)


def test_every_mark_names_its_image_and_its_category(dataset):
    assert [image["file_name"] for image in dataset["images"]] == ["a.png", "b.png"]
    names = {category["id"]: category["name"] for category in dataset["categories"]}
    found = [
        (mark["id"], mark["image_id"], names[mark["category_id"]])
        for mark in dataset["annotations"]
    ]
    assert found == [(1, 1, "cat"), (2, 1, "dog"), (3, 2, "dog"), (4, 2, "object")]
    assert dataset["images"][0] == {"id": 1, "file_name": "a.png", "width": 100, "height": 200}


def test_boxes_are_pixels_in_order_and_inside_the_image(dataset):
    cat, dog, *_ = dataset["annotations"]
    assert cat["bbox"] == pytest.approx([10, 40, 20, 40])
    assert cat["area"] == pytest.approx(800)
    assert dog["bbox"] == pytest.approx([50, 100, 10, 100])


def test_a_point_is_a_visible_keypoint(dataset):
    point = dataset["annotations"][-1]
    assert point["keypoints"] == [20, 10, 2]
    assert (point["num_keypoints"], point["bbox"]) == (1, [20, 10, 0, 0])


def test_the_data_set_is_json(dataset):
    assert json.loads(json.dumps(dataset)) == dataset
