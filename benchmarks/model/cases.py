"""Every case of the suite `model` with its target.

Targets are ratios of the base over ours; a time target must be reached by the lower quartile.
They were set on a CPU that multiplies bfloat16.  On one that does not, such a product is a hundred
times slower than in float32: there the loss in bfloat16 is narrow and has a target for memory
alone, and the visual vocabulary is measured in float32 and from fewer features.
"""

from functools import partial
from typing import Any

import torch

from benchmarks.machine import multiplies_bfloat16
from benchmarks.model import generation, loss, preprocessing, tokenization, visual_vocabulary
from benchmarks.suite import Case, Target

TEXT_VOCAB, VISUAL_VOCAB = 151936, 65536
#: A cell is 32 px x 32 px; a grid counts patches, two per side of a cell.
PAGE = (1, 84, 112)


def cases() -> list[Case]:
    """List the cases in the order of the table."""
    return [*_preprocessing(), *_tokenization(), *_loss(), _visual_vocabulary(), *_generation()]


def _preprocessing() -> list[Case]:
    targets = {(1792, 1344): 10.0, (640, 480): 7.0, (4000, 3000): 2.4}
    return [
        Case(
            goal="P1",
            workload=f"image {width}x{height}",
            build=partial(preprocessing.build, width=width, height=height),
            build_small=partial(preprocessing.build, width=100, height=70),
            target=Target(time=time),
            dtype="uint8",
        )
        for (width, height), time in targets.items()
    ]


def _tokenization() -> list[Case]:
    one_image = ((1, 28, 28),)
    shapes: dict[str, dict[str, Any]] = {
        "short question": {"turns": (12, 8), "grids": one_image, "thinking": False},
        "1,500 words of thinking, 2,352 atoms": {
            "turns": (30, 1500),
            "grids": (PAGE,),
            "thinking": True,
        },
        "10 turns": {"turns": (30, 60) * 5, "grids": one_image, "thinking": False},
    }
    return [
        Case(
            goal="P3",
            workload=name,
            build=partial(tokenization.build, **shape),
            build_small=partial(
                tokenization.build, turns=(6, 4), grids=((1, 4, 4),), thinking=False
            ),
            target=Target(time=2.7),
            dtype="int64",
        )
        for name, shape in shapes.items()
    ]


def _loss() -> list[Case]:
    native = multiplies_bfloat16()
    target = Target(time=2.5, peak=8.0)
    return [
        _loss_case(torch.float32, positions=1024, width=512, target=target),
        _loss_case(torch.bfloat16, positions=2048, width=512, target=target)
        if native
        else _loss_case(torch.bfloat16, positions=1024, width=8, target=Target(peak=8.0)),
    ]


def _loss_case(dtype: torch.dtype, *, positions: int, width: int, target: Target) -> Case:
    name = str(dtype).removeprefix("torch.")
    return Case(
        goal="C1",
        workload=f"{name}, {positions:,} x {width}, V {TEXT_VOCAB:,}",
        build=partial(loss.build, positions=positions, width=width, vocab=TEXT_VOCAB, dtype=dtype),
        build_small=partial(loss.build, positions=40, width=8, vocab=512, dtype=dtype),
        target=target,
        dtype=name,
        timed=target.time is not None,
    )


def _visual_vocabulary() -> Case:
    dtype, vit_hidden = (torch.bfloat16, 1152) if multiplies_bfloat16() else (torch.float32, 288)
    name = str(dtype).removeprefix("torch.")
    return Case(
        goal="C2",
        workload=f"{name}, 1,024 atoms, {4 * vit_hidden:,} -> 65,532 -> 2,048",
        build=partial(
            visual_vocabulary.build,
            tokens=1024,
            widths=(vit_hidden, 2048),
            vocab=VISUAL_VOCAB,
            dtype=dtype,
        ),
        build_small=partial(
            visual_vocabulary.build, tokens=20, widths=(8, 16), vocab=256, dtype=dtype
        ),
        target=Target(time=1.0, peak=3.0),
        dtype=name,
    )


def _generation() -> list[Case]:
    one_pass = [
        _one_pass_case(side=896, budget=16, total=64, time=1.6),
        _one_pass_case(side=448, budget=64, total=160, time=1.15),
    ]
    sides = (384, 320, 416, 352, 448, 384, 352, 416)
    return [
        *one_pass,
        Case(
            goal="G2",
            workload="8 images of about 384x384, budget 32 of 80",
            build=partial(generation.build_batch, sides=sides, budget=32, total=80),
            build_small=partial(
                generation.build_batch, sides=(64, 96), budget=3, total=32, narrow=True
            ),
            target=Target(time=2.8),
        ),
        Case(
            goal="G3",
            workload="8 questions on one 896x896 image, 16 tokens each",
            build=partial(generation.build_questions, side=896, questions=8, total=16),
            build_small=partial(
                generation.build_questions, side=64, questions=2, total=4, narrow=True
            ),
            target=Target(time=3.8),
        ),
    ]


def _one_pass_case(*, side: int, budget: int, total: int, time: float) -> Case:
    return Case(
        goal="G1",
        workload=f"image {side}x{side}, budget {budget} of {total}",
        build=partial(generation.build_one_pass, side=side, budget=budget, total=total),
        build_small=partial(generation.build_one_pass, side=64, budget=3, total=32, narrow=True),
        target=Target(time=time),
    )
