import random
import re

import pytest

from ovis_model.data.annotations.coordinates import (
    CONVENTIONS,
    convert_coordinates,
    detect_convention,
    to_fractions,
    write_mark,
)
from ovis_model.errors import ConfigError, DataError

NUMBERS = re.compile(r"\d\.\d{3}")


def decimals(text: str) -> list[float]:
    return [float(number) for number in NUMBERS.findall(text)]


@pytest.mark.parametrize(
    ("text", "convention", "size", "written"),
    [
        (
            "A <ref>dog</ref><box>(0.1,0.25),(0.4,1.0)</box>.",
            "normalised",
            None,
            "A <ref>dog</ref><box>(0.100,0.250),(0.400,0.999)</box>.",
        ),
        (
            "<box>( 100 , 250 ), ( 400 , 500 )</box>",
            "permille",
            None,
            "<box>(0.100,0.250),(0.400,0.500)</box>",
        ),
        (
            "<box>10 20 is no box</box> but [1, 2, 3, 4] and (5, 6) are numbers",
            "ovis",
            None,
            "<box>10 20 is no box</box> but [1, 2, 3, 4] and (5, 6) are numbers",
        ),
        (
            (
                "<|object_ref_start|>the cat<|object_ref_end|><|box_start|>(64,48),(320,240)"
                "<|box_end|>"
            ),
            "absolute",
            (640, 480),
            "<ref>the cat</ref><box>(0.100,0.100),(0.500,0.500)</box>",
        ),
        (
            "click(start_box='<|box_start|>(246,113)<|box_end|>')",
            "permille",
            None,
            "click(start_box='<point>(0.246,0.113)</point>')",
        ),
        (
            "<ref>cats</ref> [[64, 48, 320, 240], [0, 0, 640, 480]] of 2",
            "absolute",
            (640, 480),
            (
                "<ref>cats</ref> <box>(0.100,0.100),(0.500,0.500)</box>"
                "<box>(0.000,0.000),(0.999,0.999)</box> of 2"
            ),
        ),
        (
            "<ref>eye</ref>[320.0, 240]",
            "absolute_xywh",
            (640, 480),
            "<ref>eye</ref><point>(0.500,0.500)</point>",
        ),
        (
            "<point>(0.31, .42)</point><point>[7e-1, 0.4]</point>",
            "normalised",
            None,
            "<point>(0.310,0.420)</point><point>(0.700,0.400)</point>",
        ),
        (
            "<box>[64, 48, 256, 192]</box>",
            "absolute_xywh",
            (640, 480),
            "<box>(0.100,0.100),(0.500,0.500)</box>",
        ),
        (
            "<box>(0.1,0.2),(0.3,0.4)</box>",
            "ovis_xywh",
            None,
            "<box>(0.100,0.200),(0.400,0.600)</box>",
        ),
        ("<box>(100,250,300,250)</box>", "permille_xywh", None, None),
    ],
    ids=[
        *("fractions", "spaces", "ovis", "qwen", "qwen-point", "lists", "point-after-ref"),
        *("points", "xywh", "ovis-xywh", "four-in-one"),
    ],
)
def test_every_convention_becomes_that_of_ovis(
    text: str, convention: str, size: tuple[int, int] | None, written: str | None
) -> None:
    expected = written or "<box>(0.100,0.250),(0.400,0.500)</box>"
    assert convert_coordinates(text, convention=convention, size=size) == expected


@pytest.mark.parametrize("convention", [c for c in CONVENTIONS if c != "ovis"])
def test_a_box_is_found_again_to_the_pixel_in_a_picture_of_1000_px(convention: str) -> None:
    generator = random.Random(convention)
    size = (1000, 1000)
    for _ in range(500):
        x1, x2 = sorted(generator.sample(range(1001), 2))
        y1, y2 = sorted(generator.sample(range(1001), 2))
        given: list[float] = [x1, y1, x2, y2]
        if convention.endswith("_xywh"):
            given = [x1, y1, x2 - x1, y2 - y1]
        if convention.startswith(("ovis", "normalised")):
            given = [value / 1000 for value in given]
        text = f"<box>{given}</box>"
        found = decimals(convert_coordinates(text, convention=convention, size=size))
        assert len(found) == 4
        assert all(0 <= value < 1 for value in found)
        assert found[0] < found[2]
        assert found[1] < found[3]
        errors = [abs(f * 1000 - v) for f, v in zip(found, (x1, y1, x2, y2), strict=True)]
        assert max(errors) <= 1 + 1e-9


def test_rounding_does_not_close_a_box() -> None:
    assert write_mark([0.1231, 0.5, 0.1233, 0.6]) == "<box>(0.123,0.500),(0.124,0.600)</box>"
    assert write_mark([0.9996, 0.0, 1.0, 0.0001]) == "<box>(0.998,0.000),(0.999,0.001)</box>"


@pytest.mark.parametrize(
    ("text", "convention", "size", "message"),
    [
        ("<box>(0.1,0.2),(0.3,1.4)</box>", "normalised", None, r"not all are within 0 to 1$"),
        ("<box>(0.1,0.2),(0.3,0.4)</box>", "permille", None, r"thousandths are whole numbers$"),
        ("<box>(1,2),(3,1001)</box>", "permille", None, r"not all are within 0 to 1000$"),
        ("<box>(1,2),(30,40)</box>", "absolute", (20, 50), r"not all are within 20 x 50$"),
        ("<box>(-2,2),(3,4)</box>", "absolute", (20, 50), r"not all are within 20 x 50$"),
        ("<box>(.1,.2),(.3,.4)</box>", "absolute", (20, 50), r"they look normalised$"),
        ("<box>(10,2),(15,4)</box>", "absolute_xywh", (20, 50), r"not all are within 20 x 50$"),
        ("<box>(3,2),(3,4)</box>", "permille", None, r"has no width or height; x1 < x2"),
        ("<box>(3,4),(5,2)</box>", "permille", None, r"has no width or height; x1 < x2"),
        ("<box>(3,4),(0,2)</box>", "permille_xywh", None, r"has no width or height"),
        ("<box>(3,4)</box>", "permille", None, r"has 2 numbers; a box has 4, a point 2$"),
        ("<point>(3,4,5)</point>", "permille", None, r"has 3 numbers; a box has 4, a point 2$"),
        ("<box>left of it</box>", "permille", None, r"^<box>left of it</box> holds no coordinat"),
        ("<point>(1e999,4)</point>", "permille", None, r"4 finite numbers"),
        (
            "<box>(1,2),(3,4)</box>",
            "absolute",
            None,
            r"need the size of the picture, which is not",
        ),
        ("<box>(1,2),(3,4)</box>", "absolute", (0, 9), r"pixels need the size of the picture$"),
        ('[{"bbox_2d": [1, 2, 3, 4]}]', "permille", None, r"boxes in JSON, which are not convert"),
    ],
)
def test_numbers_that_contradict_their_convention_are_refused(
    text: str, convention: str, size: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        convert_coordinates(text, convention=convention, size=size)


def test_an_unknown_convention_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^'pixels' is no way to write coordinates; .* ovis, "):
        convert_coordinates("", convention="pixels")


def test_an_edge_counted_in_or_out_is_forgiven() -> None:
    assert to_fractions([-1, 0, 101, 50], "absolute", (100, 50)) == [0.0, 0.0, 1.0, 1.0]


def test_a_text_of_nothing_but_openings_is_read_in_time() -> None:
    for piece in ("<box>", "<ref>", "<|box_start|>", "<|object_ref_start|>", "<ref>x</ref>["):
        text = piece * 20_000
        assert len(convert_coordinates(text, convention="permille")) > 0


@pytest.mark.parametrize(
    ("marks", "sizes", "convention"),
    [
        ([(0.1, 0.2, 0.3, 0.4), (0.8, 0.7, 0.9, 0.9)], None, "normalised"),
        ([(0.5, 0.5, 0.1, 0.2), (0.1, 0.1, 0.9, 0.9)], None, "normalised_xywh"),
        ([(600, 700, 900, 1000)], [(640, 480)], "permille"),
        ([(600, 700, 100, 200), (0, 0, 1000, 1000)], [(640, 480)] * 2, "permille_xywh"),
        ([(100, 200, 1500, 1200)], [(1600, 1300)], "absolute"),
        ([(331.5, 761.4, 853.5, 1594.8)], [(1200, 1600)], "absolute"),
        ([(1000, 500, 600, 700), (10, 10, 20, 20)], [(1600, 1300)] * 2, "absolute_xywh"),
        ([(0.5, 0.25)], None, "normalised"),
    ],
)
def test_numbers_tell_their_convention(
    marks: list[tuple[float, ...]], sizes: list[tuple[int, int]] | None, convention: str
) -> None:
    evidence = detect_convention(marks, sizes=sizes)
    assert evidence.convention == convention
    assert evidence.num_marks == len(marks)
    assert convention not in evidence.against
    assert evidence.against


@pytest.mark.parametrize(
    ("marks", "sizes", "message"),
    [
        ([(0, 0, 1, 1)], None, r"fit normalised and .*permille.*name one in"),
        ([(100, 200, 900, 950)], [(1600, 1300)], r"fit permille and absolute"),
        ([(100, 200, 300, 400)], None, r"fit permille and permille_xywh and absolute"),
        ([(0.1, 0.2, 0.3, 0.4)], None, r"fit normalised and normalised_xywh; name one"),
        ([(-9, 0, 5, 5)], [(4, 4)], r"^no convention fits: "),
        ([], None, r"there are no boxes or points to tell"),
    ],
    ids=["unit-square", "large-picture", "no-sizes", "order", "none", "nothing"],
)
def test_what_is_ambiguous_is_refused(
    marks: list[tuple[float, ...]], sizes: list[tuple[int, int]] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        detect_convention(marks, sizes=sizes)
