"""Boxes and points are found in whatever a model writes around them."""

import pytest
from PIL import Image

from ovis_model.inference.grounding import Box, Point, draw_overlay, parse_grounding

BOX = Box(0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("<box>(0.1,0.2),(0.3,0.4)</box>", id="as taught"),
        pytest.param("<box> ( 0.1 , 0.2 ) , ( 0.3 , 0.4 ) </box>", id="spaces"),
        pytest.param("<box>(0.1,0.2),\n(0.3,0.4)</box>", id="line break"),
        pytest.param("It is at [<box>(.1,.2),(.3,4e-1)</box>].", id="inside a sentence"),
    ],
)
def test_reads_a_box(text):
    assert parse_grounding(text).boxes == (BOX,)


def test_a_list_of_boxes_shares_the_ref_before_it():
    found = parse_grounding(
        "<ref>2 dogs</ref>[<box>(0.1,0.2),(0.3,0.4)</box>,<box>(0.5,0.5),(0.6,0.6)</box>] "
        "<ref>a cat</ref><point>(0.7, 0.8)</point>"
    )
    assert [box.label for box in found.boxes] == ["2 dogs", "2 dogs"]
    assert found.points == (Point(0.7, 0.8, "a cat"),)
    assert found.refs == ("2 dogs", "a cat")


@pytest.mark.parametrize(
    "text", ["<box>(0.1,0.2),(0.3</box>", "<box>(0.1,0.2)</box>", "<point>here</point>", "<box>"]
)
def test_a_tag_that_cannot_be_read_is_counted(text):
    found = parse_grounding(text)
    assert (found.boxes, found.points, found.num_malformed) == ((), (), 1)


@pytest.mark.parametrize(
    ("box", "conforms"),
    [
        (Box(0.0, 0.0, 1.0, 1.0), True),
        (Box(0.5, 0.0, 0.4, 1.0), False),
        (Box(0.0, 0.0, 1.2, 1.0), False),
        (Box(100, 100, 500, 500), False),
    ],
)
def test_only_ordered_fractions_conform(box, conforms):
    assert box.conforms is conforms


@pytest.mark.parametrize(
    ("other", "iou"),
    [
        pytest.param(BOX, 1.0, id="same"),
        pytest.param(Box(0.1, 0.2, 0.3, 0.3), 0.5, id="half"),
        pytest.param(Box(0.5, 0.5, 0.6, 0.6), 0.0, id="apart"),
        pytest.param(Box(0.2, 0.2, 0.2, 0.2), 0.0, id="empty"),
        pytest.param(Box(0.3, 0.4, 0.1, 0.2), 0.0, id="reversed"),
    ],
)
def test_iou(other, iou):
    assert BOX.iou(other) == pytest.approx(iou)
    assert other.iou(BOX) == pytest.approx(iou)


def test_pixels_are_fractions_of_width_and_height_and_stay_inside():
    assert BOX.to_pixels(640, 480) == pytest.approx((64, 96, 192, 192))
    assert Point(1.5, -1.0).to_pixels(10, 20) == (10, 0)


def test_a_written_box_reads_back():
    assert parse_grounding(BOX.to_text()).boxes == (BOX,)


def test_the_overlay_marks_a_copy_and_survives_reversed_corners():
    image = Image.new("RGB", (100, 100), "white")
    drawn = draw_overlay(
        image, [(Box(0.5, 0.5, 0.1, 0.1), "red"), (Point(0.8, 0.8), "blue")], width=1
    )
    assert drawn.getpixel((10, 30)) == (255, 0, 0)
    assert image.getpixel((10, 30)) == (255, 255, 255)
    assert (0, 0, 255) in {colour for _, colour in drawn.getcolors()}
