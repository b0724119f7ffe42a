"""Rows of predictions as tests need them."""

from ovis_model.evaluation.predictions import PredictionRow

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
