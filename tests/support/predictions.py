"""Rows of predictions as tests need them."""

from ovis_model.evaluation.predictions import (
    BenchmarkRecord,
    PredictionRow,
    Run,
    RunRecord,
)

MODEL = "m"


def row(index, score=1.0, **fields):
    """Return a scored row; the cluster is the item's own unless it is given."""
    given = {
        "model": MODEL,
        "benchmark": "x",
        "index": index,
        "row_hash": "0",
        "cluster": index,
        "prompt": "Which digit is this?",
        "enable_thinking": True,
        "value": score,
        "status": "scored",
        "finish_reason": "stop",
    }
    return PredictionRow(score=score, **{**given, **fields})


def run(
    model=MODEL, *, seeds=(0,), parts=("rows",), conditions=None, fingerprint="f", **benchmarks
):
    """Return a run that asked every item of its rows, with a record that says so."""
    records = {
        name: BenchmarkRecord(
            fingerprint=fingerprint,
            metric="exact",
            num_items=max(1, len({one.index for one in rows})),
            seeds=seeds,
            parts=parts,
        )
        for name, rows in benchmarks.items()
    }
    record = RunRecord(model=model, conditions=conditions or {}, benchmarks=records)
    return Run(record, benchmarks)


def rows_right(percent, num_items=200, **fields):
    """Return rows of which the first are right, as many as make this score."""
    num_right = round(percent * num_items / 100)
    return [row(f"{n:04}", float(n < num_right), **fields) for n in range(num_items)]
