"""What the register step puts on the run besides the model."""

from tasks.register import data_metrics
from tests.support.raw_data import sample, write_annotations
from tests.support.validating import run_validation


def test_the_run_tells_how_many_samples_of_which_source_it_learned_from(tmp_path):
    for name in ("web", "ours"):
        samples = [sample(f"{name}{n}", f"{name} {n}?", "7") for n in range(3)]
        write_annotations(tmp_path / "raw" / name, samples)
    sources = [
        {"name": "web", "annotations": "web/annotations.json", "max_samples": 1},
        {"name": "ours", "annotations": "ours/annotations.json"},
    ]
    found = data_metrics(run_validation(tmp_path, sources=sources))
    assert found == {
        "data.samples": 6.0,
        "data.quarantined": 0.0,
        "data.dropped": 2.0,
        "data.train_lines": 4.0,
        "data.holdout": 0.0,
        "data.share.ours": 0.75,
        "data.share.web": 0.25,
    }
