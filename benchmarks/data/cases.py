"""Every case of the suite `data` with its target.

Targets are ratios of the base over ours; a time target must be reached by the lower quartile.
Where the goal is so many microseconds a row, the ratio here is that of the goal to what the base
was when the goal was set: 363 for decoding, 40 for a header, 5 for a file that did not change.
`scale_report` holds the measured microseconds against the goal itself.
"""

from functools import partial

from benchmarks.data import inspection, opening, samples, video
from benchmarks.suite import Case, Target

#: Of D2: uses of files, and different files.
LOOKS, LOOKS_SMALL = (100_000, 10_000), (200, 20)
_SMALL_SIZES = ((100, 70), (64, 64), (90, 120))


def cases() -> list[Case]:
    """List the cases in the order of the table."""
    return [*_video(), _samples(), _opening(), *_inspection()]


def _video() -> list[Case]:
    small, small_again = (
        partial(build, num_frames=3, seconds=1.0, size=(64, 48))
        for build in (video.build_frames, video.build_second_read)
    )
    decoding = [
        Case(
            goal="V1",
            workload=f"{num_frames} frames of 60 s, 1920x1080",
            build=partial(video.build_frames, num_frames=num_frames),
            build_small=small,
            target=Target(time=time),
            dtype="uint8",
        )
        for num_frames, time in ((8, 2.7), (64, 2.6))
    ]
    again = Case(
        goal="V2",
        workload="8 frames of 60 s, 1920x1080, once more",
        build=partial(video.build_second_read, num_frames=8),
        build_small=small_again,
        target=Target(time=200.0),
        dtype="uint8",
    )
    return [*decoding, again]


def _samples() -> Case:
    return Case(
        goal="P2",
        workload=f"{len(samples.SIZES)} samples, a JPEG each, 200x120 to 4000x3000",
        build=samples.build,
        build_small=partial(samples.build, sizes=_SMALL_SIZES),
        target=Target(time=2.5),
        dtype="uint8",
    )


def _opening() -> Case:
    return Case(
        goal="D1",
        workload="1,000,000 annotations of 0.9 kB",
        build=partial(opening.build, rows=1_000_000),
        build_small=partial(opening.build, rows=1000),
        target=Target(time=15.0, peak=100.0),
        dtype="json",
    )


def _inspection() -> list[Case]:
    rows, files = LOOKS
    small_rows, small_files = LOOKS_SMALL
    return [
        Case(
            goal="D2",
            workload=f"{rows:,} pictures of 0.12 Mpx, {name}",
            build=partial(build, rows=rows, files=files),
            build_small=partial(build, rows=small_rows, files=small_files),
            target=target,
            dtype="jpeg",
        )
        for name, build, target in (
            ("headers", inspection.build_headers, Target(time=9.0)),
            ("unchanged", inspection.build_rerun, Target(time=8.0)),
        )
    ]
