from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ovis_model.data.checks.looks import near_duplicates
from ovis_model.data.media.images import look

GREY = 128
A = 0x0123456789ABCDEF


def looks_of(*hashes: int, tones: list[int] | None = None) -> list[str]:
    tones = tones or [GREY] * len(hashes)
    return [
        f"{value:016x}{tone:02x}" + f"{GREY:02x}" * 63
        for value, tone in zip(hashes, tones, strict=True)
    ]


def pairs(looks: list[str]) -> set[tuple[int, int]]:
    return {(left, right) for left, right in near_duplicates(looks).tolist()}


@pytest.mark.parametrize("bits", [(0,), (0, 63), (5, 21, 40)])
def test_looks_that_differ_in_up_to_three_bits_are_one_picture(bits: tuple[int, ...]) -> None:
    other = A
    for bit in bits:
        other ^= 1 << bit
    assert pairs(looks_of(A, other)) == {(0, 1)}


def test_looks_that_differ_in_four_bits_are_two_pictures() -> None:
    assert pairs(looks_of(A, A ^ 0b1111)) == set()


def test_greys_that_differ_are_two_pictures_whatever_the_hash_says() -> None:
    tones = [GREY, GREY + 24, GREY + 25]
    assert pairs(looks_of(A, A, A, tones=tones)) == {(0, 1)}
    assert pairs(looks_of(A, A ^ 1, A ^ 2, tones=tones)) == {(0, 1), (1, 2)}
    dark = looks_of(A)[0][:16] + f"{GREY - 6:02x}" * 64  # a little everywhere
    assert pairs([*looks_of(A), dark]) == set()


def test_of_equal_looks_each_is_paired_with_the_first() -> None:
    assert pairs(looks_of(A, A, A, 0xFF00FF00)) == {(0, 1), (0, 2)}
    assert pairs([]) == set()


def test_the_pairs_are_those_of_comparing_all_with_all() -> None:
    random = np.random.default_rng(0)
    base = random.integers(0, 2**63, 30, dtype=np.uint64)
    flips = np.array([1 << int(b) for b in random.integers(0, 64, 90)], dtype=np.uint64)
    hashes = np.unique(np.concatenate([base, np.tile(base, 3) ^ flips])).tolist()
    random.shuffle(hashes)
    expected = {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (hashes[i] ^ hashes[j]).bit_count() <= 3
    }
    assert pairs(looks_of(*hashes)) == expected


def drawing(x: int, text: str) -> Image.Image:
    image = Image.new("RGB", (288, 288), "white")
    draw = ImageDraw.Draw(image)
    for row in range(3):
        draw.text((x, 90 * row), text * 3, fill="black", font_size=90)
    return image


def saved(image: Image.Image, **options: object) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, **options)
    return Image.open(buffer).convert("RGB")


def test_drawings_on_white_are_told_apart_and_their_copies_found() -> None:
    originals = [drawing(x, text) for x in (6, 90) for text in ("3", "8", "K")]
    copies = [saved(image.resize((240, 240)), format="JPEG", quality=85) for image in originals]
    found = pairs([look(image) or "" for image in (*originals, *copies)])
    assert found == {(n, n + len(originals)) for n in range(len(originals))}
