"""The data card that validation writes agrees with its report and its ledger."""

import json

import pytest

from ovis_model.config import ValidateConfig
from ovis_model.data.checks.lengths import LengthRules
from ovis_model.data.report import ValidationReport
from ovis_model.data.validation import Context, Results, validate
from ovis_model.errors import DataError
from tests.support.raw_data import sample, write_annotations, write_every_kind
from tests.support.tiny_model import TINY_FRAMES, TINY_PIXELS, build_tiny_checkpoint


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    return build_tiny_checkpoint(tmp_path_factory.mktemp("base"))


def run(folder, base_model=None, **config):
    """Validate `folder / raw` and return report and card; a failure writes both too."""
    rules = None
    if base_model is not None:
        rules = LengthRules(
            base_model=base_model,
            pixel_limits=TINY_PIXELS,
            frame_sampling=TINY_FRAMES,
            multimodal_max_length=4096,
            text_max_length=config.pop("text_max_length", 4096),
            policy=config.get("over_length", "error"),
        )
    results = Results(
        output=folder / "validated",
        report=folder / "report.json",
        ledger=folder / "ledger.jsonl",
        data_docs=folder / "data_docs",
        card=folder / "data_card.html",
    )
    try:
        validate(
            ValidateConfig(raw_data="raw", workers=1, **config),
            raw_data=folder / "raw",
            results=results,
            context=Context(sampling=TINY_FRAMES, lengths=rules),
        )
    except DataError:
        assert not results.output.exists()
    card = json.loads((folder / "data_card.json").read_text(encoding="utf-8"))
    return ValidationReport.read(results.report), card


def histograms(card):
    return {found["name"]: found for found in card["statistics"]["histograms"]}


def test_the_card_has_the_numbers_of_the_report(tmp_path, base_model):
    good = write_every_kind(tmp_path / "raw")
    gone = sample("gone", "<image>?", "1", image="none.png")
    write_annotations(tmp_path / "raw", [*good, gone, good[5]])
    report, card = run(tmp_path, base_model, max_bad_fraction=0.5, holdout_fraction=0.3)
    assert (card["num_input"], card["num_ok"]) == (report.num_samples, report.num_ok) == (11, 9)
    assert card["num_quarantined"] == 1
    assert card["dropped"] == report.num_dropped == {"repeated": 1}
    assert card["num_train"] + card["num_holdout"] == 9
    assert card["statistics"]["kinds"] == report.kinds
    (finding,) = [found for found in card["findings"] if found["outcome"] == "quarantine"]
    assert finding == {
        "code": "missing_media",
        "outcome": "quarantine",
        "count": 1,
        "examples": ["gone"],
    }


def test_sizes_are_those_of_the_good_samples(tmp_path, base_model):
    good = write_every_kind(tmp_path / "raw")
    write_annotations(
        tmp_path / "raw", [*good, sample("bad", "<image>" * 9, "1", image=["images/a.png"])]
    )
    report, card = run(tmp_path, base_model, max_bad_fraction=0.5)
    found = histograms(card)
    assert found["tokens"]["count"] == 9
    assert found["tokens"]["quantiles"]["max"] == report.lengths.longest
    assert found["tokens"]["quantiles"]["p50"] == report.lengths.median
    # Three pictures are used twice and count once; the clip has the same size.
    assert found["picture area"]["count"] == 6
    assert set(found["picture area"]["quantiles"].values()) == {32 * 32}
    assert found["images"]["counts"] == [5, 3, 1]
    assert found["frames"]["quantiles"]["min"] == 3
    assert found["frames"]["quantiles"]["max"] == 6
    assert (found["thought"]["count"], found["thought"]["quantiles"]["max"]) == (1, 12)
    assert found["text"]["count"] == 9


def test_label_masks_are_those_of_training_where_there_is_a_base_model(tmp_path, base_model):
    write_every_kind(tmp_path / "raw")
    _, card = run(tmp_path, base_model)
    assert len(card["samples"]) == 9
    counts = sorted(shown["num_tokens"] for shown in card["samples"])
    assert (counts[0], counts[-1]) == tuple(
        histograms(card)["tokens"]["quantiles"][name] for name in ("min", "max")
    )
    assert all(shown["num_supervised_tokens"] > 0 for shown in card["samples"])


def test_without_a_base_model_the_card_says_what_was_not_checked(tmp_path):
    write_every_kind(tmp_path / "raw")
    _, card = run(tmp_path)
    assert "lengths in tokens" in card["details"]["not checked"]
    assert histograms(card)["tokens"]["count"] == 0
    assert {shown["num_tokens"] for shown in card["samples"]} == {None}


def test_a_sample_that_was_made_to_fit_is_shown_as_it_is_trained_on(tmp_path, base_model):
    text = sample("long", "Why?", "Because of " + "this and " * 30)
    write_annotations(tmp_path / "raw", [text, *[sample(f"s{n}", "?", "1") for n in range(3)]])
    limit = {"over_length": "truncate_text", "text_max_length": 60}
    report, card = run(tmp_path, base_model, **limit)
    assert report.passed
    shown = {found["id"]: found for found in card["samples"]}
    assert shown["long"]["num_tokens"] == 60
    assert histograms(card)["tokens"]["quantiles"]["max"] == 60
    assert '<span class="cut"' in (tmp_path / "data_card.html").read_text(encoding="utf-8")


def test_a_failed_validation_has_a_card_too(tmp_path):
    write_annotations(tmp_path / "raw", [sample("a", "<image>?", "1", image="none.png")])
    report, card = run(tmp_path)
    assert not report.passed
    assert (card["num_ok"], card["num_quarantined"], card["samples"]) == (0, 1, [])


def test_equal_data_gives_an_equal_card(tmp_path, base_model):
    for name in ("one", "two"):
        write_every_kind(tmp_path / name / "raw")
        run(tmp_path / name, base_model)
    for name in ("data_card.html", "data_card.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
