"""Runs of two benchmarks with one of everything that a report tells."""

from PIL import Image, ImageDraw

from ovis_model.evaluation.contamination import Overlap
from ovis_model.evaluation.predictions import (
    BenchmarkRecord,
    Flags,
    Run,
    RunRecord,
    TokenCounts,
)
from ovis_model.evaluation.scores import PublishedNumber
from ovis_model.evaluation.summary import Sources
from tests.support.browser import HOSTILE
from tests.support.predictions import row

BOX = "<ref>the 7</ref><box>(0.100,0.200),(0.500,0.700)</box>"
FOUND = "<ref>7</ref><box>(0.200,0.250),(0.600,0.800)</box>"
#: The tuned model, by seed and question: right, wrong, unresolved, invalid.
SCORES = {0: "rrrrwwrrwrui", 1: "rrrwwwrrrrui", 2: "rrrrwrrrwrui"}


def sources(*, champion=True):
    """Return runs of a tuned and a base model, without thinking, and of the champion."""
    return Sources(
        tuned=_run("tuned", SCORES),
        base=_run("base", dict.fromkeys(SCORES, "rwwwwwrwwwuw")),
        thinking_off=_run("tuned", {0: "rrwwwrrwwrur"}, thinking=False),
        champion=_run("champion", {0: "rrrrrwwrwwur"}) if champion else None,
        published={
            "charts": PublishedNumber(
                score=72.4, source="a table", obstacles=("only the first items were asked",)
            ),
            "boxes": PublishedNumber(score=60.0, source="a table"),
        },
        overlaps={"charts": Overlap(num_samples=1234, looks=frozenset({"c01", f"c02 {HOSTILE}"}))},
    )


def picture_of(shown):
    """Draw what a row of `sources` is about."""
    image = Image.new("RGB", (320, 240), (236, 238, 245))
    pen = ImageDraw.Draw(image)
    pen.rectangle((32, 48, 160, 168), fill=(90, 110, 190))
    pen.text((70, 90), shown.index[:3], fill="white")
    return (image,)


def _run(model, scores, *, thinking=True):
    rows = {
        "charts": [
            _chart(place, letter, seed, model, thinking)
            for seed, letters in scores.items()
            for place, letter in enumerate(letters)
        ],
        "boxes": [_box(model, seed, thinking) for seed in scores],
    }
    records = {
        name: BenchmarkRecord(
            fingerprint=name * 10, metric=metric, num_items=count, seeds=tuple(scores)
        )
        for name, metric, count in (("charts", "multiple_choice", 12), ("boxes", "grounding", 1))
    }
    record = RunRecord(
        model=model,
        protocol={"enable_thinking": thinking, "thinking_budget": 2048, "note": HOSTILE},
        conditions={"backend": "transformers", "dtype": "bfloat16"},
        provenance={"code version": "1.2", "hardware": HOSTILE},
        benchmarks=records,
    )
    return Run(record, rows)


def _chart(place, letter, seed, model, thinking):
    forced = place == 4 and thinking
    status = {"u": "unresolved", "i": "invalid"}.get(letter, "scored")
    tokens = 100 + 37 * place + 5 * seed if thinking else 0
    return row(
        f"c{place:02} {HOSTILE}" if place == 2 else f"c{place:02}",
        float(letter == "r"),
        model=model,
        benchmark="charts",
        seed=seed,
        cluster=str(place // 2),
        prompt=f"Which bar is the longest? {HOSTILE if place == 5 else ''}\nA. red\nB. blue",
        truth="B",
        thinking=f"The blue one looks longer. {HOSTILE}" if thinking else "",
        response="" if letter == "i" else {"r": "B", "u": "either"}.get(letter, "A"),
        extracted={"r": "B", "w": "A"}.get(letter, ""),
        status=status,
        enable_thinking=thinking,
        flags=Flags(forced_close=forced, answer_truncated=place == 8 and thinking),
        tokens=TokenCounts(
            prompt=400, visual=320, thinking=tokens, answer=4, generated=tokens + 6
        ),
        latency_s=2.0 + place / 10,
        batch_rows=4,
        slices={"category": ("bars", "lines")[place % 2], "language": HOSTILE if place else "en"},
    )


def _box(model, seed, thinking):
    hit = model != "base"
    return row(
        "b1",
        float(hit),
        model=model,
        benchmark="boxes",
        seed=seed,
        prompt="Where is the 7? Please provide the bounding box coordinates.",
        truth=BOX,
        response=FOUND if hit else f"nowhere {HOSTILE}",
        value=0.55 if hit else 0.0,
        status="scored" if hit else "invalid",
        enable_thinking=thinking,
    )
