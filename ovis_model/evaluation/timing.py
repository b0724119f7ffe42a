"""How fast answers came.  Clock readings: for the page and the tracker, not for evaluate.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Self

import numpy as np

from ovis_model.evaluation.predictions import PredictionRow, Run


@dataclass(frozen=True)
class Timing:
    """Of one model on one benchmark.

    Attributes:
        latency_p50: Seconds from asking to the whole answer, for half of the answers at most.
        latency_p95: The same for 95 % of them.
        ttft_p50: Seconds to the first token; None if the backend does not tell.
        tokens_per_second: Generated tokens, over all that were generated together.
        prompt_tokens: Positions of a prompt, on average.
        visual_tokens: Visual ones of them, on average.
        generated_tokens: New tokens of an answer, on average.
        batch_rows: Questions answered together, on average.
    """

    latency_p50: float
    latency_p95: float
    ttft_p50: float | None
    tokens_per_second: float
    prompt_tokens: float
    visual_tokens: float
    generated_tokens: float
    batch_rows: float

    @classmethod
    def of(cls, rows: Sequence[PredictionRow]) -> Self | None:
        """Time the rows of one benchmark; None if none of them was timed."""
        timed = [(row, row.latency_s) for row in rows if row.latency_s is not None]
        if not timed:
            return None
        latency = [seconds for _, seconds in timed]
        first = [row.ttft_s for row, _ in timed if row.ttft_s is not None]
        # A batch's time is that of every row in it: each has its share.
        spent = sum(seconds / row.batch_rows for row, seconds in timed)
        tokens = [row.tokens.generated for row, _ in timed]
        return cls(
            latency_p50=float(np.percentile(latency, 50)),
            latency_p95=float(np.percentile(latency, 95)),
            ttft_p50=float(np.percentile(first, 50)) if first else None,
            tokens_per_second=sum(tokens) / spent if spent else 0.0,
            prompt_tokens=fmean(row.tokens.prompt for row, _ in timed),
            visual_tokens=fmean(row.tokens.visual for row, _ in timed),
            generated_tokens=fmean(tokens),
            batch_rows=fmean(row.batch_rows for row, _ in timed),
        )


def timing_metrics(runs: Mapping[str, Run]) -> dict[str, float]:
    """Return every reading under a flat name, for a tracker.

    Args:
        runs: By the role of their model.
    """
    return {
        f"{benchmark}.{role}.{key}": float(value)
        for role, run in runs.items()
        for benchmark, rows in run.rows.items()
        if (timing := Timing.of(rows)) is not None
        for key, value in asdict(timing).items()
        if value is not None
    }
