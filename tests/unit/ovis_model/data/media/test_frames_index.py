from fractions import Fraction

import numpy as np
import pytest

from ovis_model.data.media.frames_index import PacketFact, index_packets

MILLISECOND = Fraction(1, 1000)


def packet(pts: int | None, dts: int | None = None, *, key: bool = False) -> PacketFact:
    return PacketFact(pts, pts if dts is None else dts, 40, is_keyframe=key, is_shown=True)


def test_frames_are_sorted_by_the_time_at_which_they_are_shown() -> None:
    packets = [packet(0, -80, key=True), packet(120, -40), packet(40, 0), packet(80, 40)]
    index = index_packets(packets, tick=MILLISECOND, rates=(Fraction(25),))
    assert index.pts == (0, 40, 80, 120)
    assert index.seconds == (0.0, 0.04, 0.08, 0.12)
    assert (index.rate, index.is_variable, index.total_seconds) == (25.0, False, 0.16)
    assert index.positions == {0: 0, 120: 1, 40: 2, 80: 3}


def test_times_count_from_the_first_frame() -> None:
    index = index_packets(
        [packet(1400), packet(1440)], tick=MILLISECOND, rates=(Fraction(25), None)
    )
    assert index.seconds == (0.0, 0.04)


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30_000, 1001), Fraction(60)])
def test_the_rounding_of_a_container_does_not_make_a_rate_variable(rate: Fraction) -> None:
    packets = [packet(round(n / rate * 1000)) for n in range(2000)]
    index = index_packets(packets, tick=MILLISECOND, rates=(rate,))
    assert not index.is_variable
    assert index.seconds == tuple(n / float(rate) for n in range(2000))


def test_a_claimed_rate_that_does_not_hold_is_replaced_by_the_mean() -> None:
    packets = [packet(n * 100) for n in range(20)]
    index = index_packets(packets, tick=MILLISECOND, rates=(Fraction(25), Fraction(1000)))
    assert (index.rate, index.is_variable) == (10.0, False)


def test_a_missing_frame_makes_the_rate_variable() -> None:
    packets = [packet(n * 40) for n in range(20) if n != 10]
    index = index_packets(packets, tick=MILLISECOND, rates=(Fraction(25),))
    assert index.is_variable
    assert index.rate == pytest.approx(18 / 0.76)
    assert index.total_seconds == pytest.approx(0.8)
    assert index.seconds[10] == pytest.approx(0.44)


def test_frames_that_are_not_shown_have_no_place_but_a_position() -> None:
    hidden = PacketFact(-40, -40, 40, is_keyframe=True, is_shown=False)
    index = index_packets([hidden, packet(0), packet(40)], tick=MILLISECOND, rates=(Fraction(25),))
    assert index.pts == (0, 40)
    assert index.positions[0] == 1
    assert index.keyframe_for(0) is not None
    assert index.keyframe_for(-41) is None


def test_a_frame_belongs_to_the_last_keyframe_shown_before_it() -> None:
    # 80 comes after the keyframe 120, but is shown before it and may refer to what was earlier.
    packets = [packet(0, key=True), packet(40), packet(120, 60, key=True), packet(80, 80)]
    index = index_packets(packets, tick=MILLISECOND, rates=(Fraction(25),))
    found = [index.keyframe_for(pts) for pts in (0, 80, 120, 500)]
    assert [keyframe.pts for keyframe in found if keyframe] == [0, 0, 120, 120]
    assert index.keyframes[1].seek_to == 60


@pytest.mark.parametrize("pts", [[0, None, 80], [0, 40, 40], [None, None, None]])
def test_times_that_do_not_tell_frames_apart_leave_their_number_and_the_claimed_rate(
    pts: list[int | None],
) -> None:
    index = index_packets(
        [packet(time) for time in pts], tick=MILLISECOND, rates=(None, Fraction(25))
    )
    assert index.pts is None
    assert index.seconds == (0.0, 0.04, 0.08)
    assert index.total_seconds == pytest.approx(0.12)


def test_a_rate_that_nothing_tells_is_not_a_number() -> None:
    silent = PacketFact(None, None, 0, is_keyframe=True, is_shown=True)
    assert np.isnan(index_packets([silent], tick=MILLISECOND, rates=(None, None)).rate)
    alone = PacketFact(0, 0, 0, is_keyframe=True, is_shown=True)
    assert np.isnan(index_packets([alone], tick=MILLISECOND, rates=(None, None)).rate)


def test_one_frame_lasts_as_long_as_its_packet_says() -> None:
    index = index_packets([packet(7)], tick=MILLISECOND, rates=(None, None))
    assert (index.rate, index.total_seconds) == (25.0, 0.04)
