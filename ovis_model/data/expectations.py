"""What must hold for every sample, as a Great Expectations suite over the facts table.

The one place that imports Great Expectations, which takes seconds: import this module where
it is used, not at the top of a program.
"""
# ruff: noqa: E402 - the library reads its environment while it is imported.

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

# It has much to say about importing itself, and would like to tell its makers.
os.environ["GX_ANALYTICS_ENABLED"] = "False"
logging.getLogger("great_expectations").setLevel(logging.WARNING)

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.checkpoint import UpdateDataDocsAction
from great_expectations.data_context.types.base import ProgressBarsConfig

# This part of it sets a level of its own.
logging.getLogger(ProgressBarsConfig.__module__).setLevel(logging.WARNING)

SUITE = "samples"
#: A conversation: perhaps a system prompt, then questions, each with one answer.
ROLE_ORDER = r"^(?:system )?human (?:gpt|ignored_gpt)(?: human (?:gpt|ignored_gpt))*$"
#: Beyond it, resizing to the model's limits would distort the picture.
MAX_ASPECT_RATIO = 200
#: Values of bad rows that a page of the Data Docs shows.
_SHOWN_VALUES = 20


@dataclass(frozen=True)
class Rule:
    """One expectation and the reason code that a sample breaking it is given.

    Attributes:
        code: The reason, as reports spell it.
        columns: Columns that show what is wrong with a row.
        expectation: Has a description for people.
    """

    code: str
    columns: tuple[str, ...]
    expectation: Any


@dataclass(frozen=True)
class Outcome:
    """What became of one rule.

    Attributes:
        rows: Row numbers of all records that break it, ascending.
    """

    rule: Rule
    rows: tuple[int, ...]

    @property
    def description(self) -> str:
        """What was expected, in a sentence."""
        return str(self.rule.expectation.description)


def _null(code: str, column: str, description: str) -> Rule:
    expectation = gxe.ExpectColumnValuesToBeNull(column=column, description=description)
    return Rule(code, (column,), expectation)


def _between(
    code: str,
    column: str,
    description: str,
    *,
    min_value: float | None = None,
    max_value: float | None = None,
) -> Rule:
    expectation = gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=min_value, max_value=max_value, description=description
    )
    return Rule(code, (column,), expectation)


def _as_many(code: str, kind: str) -> Rule:
    columns = (f"num_{kind}_placeholders", f"num_{kind}s")
    expectation = gxe.ExpectColumnPairValuesToBeEqual(
        column_A=columns[0],
        column_B=columns[1],
        ignore_row_if="either_value_is_missing",
        description=f"The questions hold one <{kind}> for every {kind} of the sample.",
    )
    return Rule(code, columns, expectation)


def build_rules() -> tuple[Rule, ...]:
    """List every rule, in the order reports show them."""
    return (*_rules_of_form(), *_rules_of_text(), *_rules_of_media())


def _rules_of_form() -> tuple[Rule, ...]:
    return (
        _null("schema", "schema_error", "Every record has the form of a sample."),
        Rule(
            "duplicate_id",
            ("place",),
            gxe.ExpectColumnValuesToBeUnique(
                column="id", description="No two samples have the same id."
            ),
        ),
        Rule(
            "role_order",
            ("roles",),
            gxe.ExpectColumnValuesToMatchRegex(
                column="roles",
                regex=ROLE_ORDER,
                description="Perhaps a system turn, then human and gpt turns, alternating.",
            ),
        ),
        _between("no_answer", "num_answers", "There is a gpt turn to learn from.", min_value=1),
    )


def _rules_of_text() -> tuple[Rule, ...]:
    return (
        _between(
            "empty_text",
            "shortest_turn_chars",
            "No turn is empty; a thought is no answer.",
            min_value=1,
        ),
        _between(
            "stray_placeholder",
            "num_stray_placeholders",
            "Only human turns hold <image> and <video>.",
            max_value=0,
        ),
        _null(
            "think_tags",
            "think_problem",
            "A gpt turn thinks once, at its beginning, and closes its thought; nobody else does.",
        ),
        _null("control_token", "control_token", "No text holds a token that steers the model."),
        _null(
            "grounding",
            "grounding_problem",
            "Boxes and points are fractions in [0, 1): <box>(x1,y1),(x2,y2)</box>.",
        ),
    )


def _rules_of_media() -> tuple[Rule, ...]:
    return (
        Rule(
            "mixed_media",
            ("media_kinds",),
            gxe.ExpectColumnValuesToBeInSet(
                column="media_kinds",
                value_set=["none", "images", "video"],
                description="A sample has images or a video, not both.",
            ),
        ),
        _as_many("image_placeholders", "image"),
        _as_many("video_placeholders", "video"),
        _null("unsafe_path", "unsafe_path", "Every path stays below the data folder."),
        _null("missing_media", "missing_media", "Every image and video is there."),
        _null("unreadable_media", "unreadable_media", "Every image and video can be read."),
        _between(
            "extreme_shape",
            "aspect_ratio",
            f"No picture is more than {MAX_ASPECT_RATIO} times as long as wide.",
            max_value=MAX_ASPECT_RATIO,
        ),
        _between(
            "frame_sizes",
            "num_frame_sizes",
            "All frames of a video have one size.",
            max_value=1,
        ),
    )


def check(table: pd.DataFrame, data_docs: Path) -> list[Outcome]:
    """Run the suite over the facts table and write its Data Docs.

    Args:
        table: Columns of `ovis_model.data.facts.COLUMNS`; `row` numbers the rows.
        data_docs: Folder of the HTML site, replaced whole; open its index.html.

    Returns:
        One outcome per rule, with all offending rows, however many there are.

    Raises:
        RuntimeError: If Great Expectations could not evaluate a rule: a bug, no bad data.
    """
    rules = build_rules()
    partial = data_docs.with_name(data_docs.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    results = _run_checkpoint(table, rules, partial.absolute())
    shutil.rmtree(data_docs, ignore_errors=True)
    partial.rename(data_docs)
    return [Outcome(rule, _bad_rows(rule, results[rule.code])) for rule in rules]


def _run_checkpoint(table: pd.DataFrame, rules: tuple[Rule, ...], site: Path) -> dict[str, Any]:
    """Return Great Expectations' result of every rule, by reason code."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for name in context.get_site_names():
        context.delete_data_docs_site(name)
    context.add_data_docs_site(SUITE, _site_config(site))
    suite = context.suites.add(gx.ExpectationSuite(name=SUITE))
    for rule in rules:
        rule.expectation.meta = {"code": rule.code}
        suite.add_expectation(rule.expectation)
    batch = (
        context.data_sources.add_pandas(name="annotations")
        .add_dataframe_asset(name="facts")
        .add_batch_definition_whole_dataframe(name="all")
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=SUITE, data=batch, suite=suite)
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=SUITE,
            validation_definitions=[definition],
            actions=[UpdateDataDocsAction(name="data_docs", site_names=[SUITE])],
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": ["row", "id"],
                "partial_unexpected_count": _SHOWN_VALUES,
            },
        )
    )
    run = checkpoint.run(batch_parameters={"dataframe": table})
    return {result.expectation_config.meta["code"]: result for result in _results(run)}


def _site_config(folder: Path) -> Any:
    return {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(folder),
        },
    }


def _results(run: Any) -> Iterator[Any]:
    for validation in run.run_results.values():
        yield from validation.results


def _bad_rows(rule: Rule, result: Any) -> tuple[int, ...]:
    found = result.result.get("unexpected_index_list") or []
    rows = tuple(sorted(int(entry["row"]) for entry in found))
    if bool(result.success) == bool(rows):
        raise RuntimeError(
            f"Great Expectations could not evaluate the rule {rule.code!r}: "
            f"{result.exception_info}"
        )
    return rows
