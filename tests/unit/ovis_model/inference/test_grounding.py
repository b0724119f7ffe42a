"""Boxes and points are found in whatever a model writes around them."""

import pytest
from PIL import Image

from ovis_model.data.annotations.coordinates import write_ref
from ovis_model.inference.grounding import (
    Box,
    Point,
    draw_overlay,
    parse_grounding,
)

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
    assert Point(box.x2, box.y2).conforms is (box.x2 <= 1)
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


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "<ref>dogs</ref><box>(0.1,0.2),(0.3,0.4)</box><box>(0.5,0.5),(0.6,0.6)</box>",
            id="one after the other",
        ),
        pytest.param(
            "<ref>dogs</ref>\n[\n<box>(0.1,0.2),(0.3,0.4)</box>,\n"
            "<box>(0.5,0.5),(0.6,0.6)</box>\n]",
            id="a list over lines",
        ),
        pytest.param(
            "<ref>dogs</ref><box>[(0.1,0.2),(0.3,0.4),(0.5,0.5),(0.6,0.6)]</box>",
            id="one tag for all",
        ),
    ],
)
def test_several_boxes_after_one_ref(text):
    found = parse_grounding(text)
    assert found.boxes == (Box(0.1, 0.2, 0.3, 0.4, "dogs"), Box(0.5, 0.5, 0.6, 0.6, "dogs"))
    assert found.num_malformed == 0


def test_several_points_in_one_tag():
    found = parse_grounding("<ref>eyes</ref><point>[(0.1,0.2), (0.3,0.2)]</point>")
    assert found.points == (Point(0.1, 0.2, "eyes"), Point(0.3, 0.2, "eyes"))


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[(0.1,0.2),(0.3,0.4)]", 1),
        ("(0.1,0.2),(0.3,0.4)", 1),
        ("It is at ( 0.1, 0.2 ),\n( 0.3, 0.4 ).", 1),
        ("[0.1, 0.2, 0.3, 0.4]", 1),
        ("[(0.1,0.2),(0.3,0.4)], [(0.1,0.2),(0.3,0.4)]", 2),
        ("(0.1,0.2),(0.3,0.4),(0.1,0.2),(0.3,0.4)", 2),
    ],
)
def test_boxes_without_tags_are_read_when_asked_for(text, boxes):
    found = parse_grounding(text, untagged="box")
    assert found.boxes == (BOX,) * boxes
    assert found.num_malformed == 0
    assert parse_grounding(text).boxes == ()


def test_points_without_tags_are_read_when_asked_for():
    found = parse_grounding("(0.1,0.2) and (0.3,0.4)", untagged="point")
    assert found.points == (Point(0.1, 0.2), Point(0.3, 0.4))


def test_a_box_without_its_second_corner_is_malformed():
    found = parse_grounding("(0.1,0.2)", untagged="box")
    assert (found.boxes, found.num_malformed) == ((), 1)


def test_tags_are_read_before_coordinates_alone():
    text = "(0.9,0.9),(1.0,1.0) <box>(0.1,0.2),(0.3,0.4)</box>"
    assert parse_grounding(text, untagged="box").boxes == (BOX,)
    broken = parse_grounding("<box>(0.1,0.2)</box>(0.1,0.2),(0.3,0.4)", untagged="box")
    assert (broken.boxes, broken.num_malformed) == ((), 1)


def test_an_unclosed_tag_does_not_swallow_the_next():
    found = parse_grounding("<box>(0.5,0.5) <box>(0.1,0.2),(0.3,0.4)</box>")
    assert (found.boxes, found.num_malformed) == ((BOX,), 1)


@pytest.mark.parametrize("label", ["a <b> key", "</ref>", "Tom & Jerry", "café 日本"])
def test_a_label_reads_back_as_it_was_written(label):
    text = write_ref(label) + BOX.to_text()
    assert parse_grounding(text).boxes == (Box(0.1, 0.2, 0.3, 0.4, label),)


def test_reversed_corners_are_flagged_and_can_be_put_in_order():
    [box] = parse_grounding("<box>(0.3,0.4),(0.1,0.2)</box>").boxes
    assert not box.conforms
    assert box.ordered() == BOX


def test_labels_are_drawn_beside_their_marks():
    image = Image.new("RGB", (200, 100), "white")
    mark = [(Box(0.1, 0.2, 0.9, 0.9, "apple"), "red")]
    assert draw_overlay(image, mark, with_labels=True) != draw_overlay(image, mark)
