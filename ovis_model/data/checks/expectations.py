"""What must hold for every sample, turn and medium, as Great Expectations suites over the facts.

The one place that imports Great Expectations, which takes seconds: import this module where
it is used, not at the top of a program.
"""
# ruff: noqa: E402 - the library reads its environment while it is imported.

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
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

from ovis_model.data.checks.data_docs import as_text, make_offline, values_as_text
from ovis_model.data.checks.facts import TABLES, Table
from ovis_model.data.reasons import MEDIA_PROBLEMS, REASONS, Severity

# This part of it sets a level of its own.
logging.getLogger(ProgressBarsConfig.__module__).setLevel(logging.WARNING)

SITE = "expectations"
#: A conversation: perhaps a system prompt, then questions, each with one answer.
ROLE_ORDER = r"^(?:system )?human (?:gpt|ignored_gpt)(?: human (?:gpt|ignored_gpt))*$"
#: Frame files that one video may list.
MAX_LISTED_FRAMES = 10_000
#: Values of bad rows that a page of the Data Docs shows.
_SHOWN_VALUES = 20


#: What Great Expectations calls our weights.
_SEVERITIES: Mapping[Severity, str] = {
    "stop": "critical",
    "quarantine": "warning",
    "warn": "info",
}


@dataclass(frozen=True)
class Rule:
    """One expectation and the reason code that a sample breaking it is given.

    Attributes:
        code: The reason, one of `ovis_model.data.reasons.REASONS`.
        table: Whose rows it judges.
        columns: Columns that show what is wrong with a row.
        expectation: Has a description for people.
    """

    code: str
    table: Table
    columns: tuple[str, ...]
    expectation: Any


@dataclass(frozen=True)
class Outcome:
    """What became of one rule.

    Attributes:
        rows: Row numbers of its table that break it, ascending.
    """

    rule: Rule
    rows: tuple[int, ...]


def build_rules(*, with_lengths: bool = True, with_benchmarks: bool = True) -> tuple[Rule, ...]:
    """List every rule, in the order reports show them.

    Args:
        with_lengths: Whether tokens were counted, which takes a base model.
        with_benchmarks: Whether there are benchmarks that training data could leak into.
    """
    return (
        *_rules_of_form(),
        *_rules_of_turns(),
        *(_rules_of_length() if with_lengths else ()),
        *_rules_of_files(),
        *_rules_of_videos(),
        *(_rules_of_leaks() if with_benchmarks else ()),
    )


def _described(code: str) -> dict[str, Any]:
    return {"description": as_text(REASONS[code].expected), "meta": {"code": code}}


def _null(code: str, table: Table, column: str) -> Rule:
    expectation = gxe.ExpectColumnValuesToBeNull(column=column, **_described(code))
    return Rule(code, table, (column,), expectation)


def _between(
    code: str,
    table: Table,
    column: str,
    *,
    min_value: float | None = None,
    max_value: float | None = None,
) -> Rule:
    expectation = gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=min_value, max_value=max_value, **_described(code)
    )
    return Rule(code, table, (column,), expectation)


def _as_many(code: str, kind: str) -> Rule:
    columns = (f"num_{kind}_placeholders", f"num_{kind}s")
    expectation = gxe.ExpectColumnPairValuesToBeEqual(
        column_A=columns[0],
        column_B=columns[1],
        ignore_row_if="either_value_is_missing",
        **_described(code),
    )
    return Rule(code, "samples", columns, expectation)


def _no_problem(code: str) -> Rule:
    expectation = gxe.ExpectColumnValuesToNotBeInSet(
        column="problem", value_set=[code], **_described(code)
    )
    return Rule(code, "media", ("detail",), expectation)


def _not_noted(code: str) -> Rule:
    expectation = gxe.ExpectColumnValuesToBeInSet(
        column=code, value_set=[False], **_described(code)
    )
    return Rule(code, "media", ("path",), expectation)


def _rules_of_form() -> tuple[Rule, ...]:
    return (
        _null("not_json", "samples", "not_json"),
        _null("schema", "samples", "schema_error"),
        _null("unsafe_id", "samples", "unsafe_id"),
        _null("generated_id", "samples", "generated_id"),
        _null("duplicate_id", "samples", "duplicate_id"),
        _null("duplicate_content", "samples", "duplicate_content"),
        Rule(
            "role_order",
            "samples",
            ("roles",),
            gxe.ExpectColumnValuesToMatchRegex(
                column="roles", regex=ROLE_ORDER, **_described("role_order")
            ),
        ),
        _between("no_answer", "samples", "num_answers", min_value=1),
        Rule(
            "mixed_media",
            "samples",
            ("media_kinds",),
            gxe.ExpectColumnValuesToBeInSet(
                column="media_kinds",
                value_set=["none", "images", "video"],
                **_described("mixed_media"),
            ),
        ),
        _as_many("image_placeholders", "image"),
        _as_many("video_placeholders", "video"),
        _between("too_many_frames", "samples", "num_listed_frames", max_value=MAX_LISTED_FRAMES),
        _between("frame_sizes", "samples", "num_frame_sizes", max_value=1),
    )


def _rules_of_turns() -> tuple[Rule, ...]:
    return (
        _between("empty_text", "turns", "num_chars", min_value=1),
        _between("stray_placeholder", "turns", "num_stray_placeholders", max_value=0),
        _null("think_tags", "turns", "think_problem"),
        _null("control_token", "turns", "control_token"),
        _null("control_characters", "turns", "control_character"),
        _null("invisible_characters", "turns", "invisible_character"),
        _null("huge_word", "turns", "huge_word"),
        _null("grounding", "turns", "grounding_problem"),
    )


def _rules_of_length() -> tuple[Rule, ...]:
    return (
        _null("over_length", "samples", "over_length"),
        _between("no_supervised_tokens", "samples", "num_supervised_tokens", min_value=1),
        _null("long_thought", "samples", "long_thought"),
    )


def _rules_of_files() -> tuple[Rule, ...]:
    return (
        *map(_no_problem, MEDIA_PROBLEMS),
        _not_noted("wrong_extension"),
        _not_noted("blank"),
        _null("near_duplicate", "media", "near_duplicate"),
    )


def _rules_of_videos() -> tuple[Rule, ...]:
    return (
        _null("empty_range", "samples", "empty_range"),
        _null("few_frames", "samples", "few_frames"),
        _not_noted("variable_rate"),
    )


def _rules_of_leaks() -> tuple[Rule, ...]:
    return (
        _null("leaked_image", "media", "leaked_image"),
        _null("leaked_near_duplicate", "media", "leaked_near_duplicate"),
        _null("leaked_question", "samples", "leaked_question"),
    )


def check(
    tables: Mapping[Table, pd.DataFrame],
    rules: Sequence[Rule],
    data_docs: Path,
    *,
    severities: Mapping[str, Severity],
) -> list[Outcome]:
    """Run one suite per table and write their Data Docs.

    Args:
        tables: The facts.
        rules: What must hold.
        data_docs: Folder of the HTML site, replaced whole; open its index.html.
        severities: The weight of each reason code, which the site shows.

    Returns:
        One outcome per rule, with all offending rows, however many there are.

    Raises:
        RuntimeError: If Great Expectations could not evaluate a rule: a bug, no bad data.
    """
    partial = data_docs.with_name(data_docs.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for rule in rules:
        rule.expectation.severity = _SEVERITIES[severities[rule.code]]
    results = _run_checkpoint(tables, rules, partial.absolute())
    make_offline(partial)
    shutil.rmtree(data_docs, ignore_errors=True)
    partial.rename(data_docs)
    return [Outcome(rule, _bad_rows(rule, results[rule.code])) for rule in rules]


def _run_checkpoint(
    tables: Mapping[Table, pd.DataFrame], rules: Sequence[Rule], site: Path
) -> dict[str, Any]:
    """Return Great Expectations' result of every rule, by reason code."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for name in context.get_site_names():
        context.delete_data_docs_site(name)
    context.add_data_docs_site(SITE, _site_config(site))
    source = context.data_sources.add_pandas(name="annotations")
    found: dict[str, Any] = {}
    for name in TABLES:
        suite = context.suites.add(gx.ExpectationSuite(name=name))
        for rule in rules:
            if rule.table == name:
                suite.add_expectation(rule.expectation)
        batch = source.add_dataframe_asset(name=name).add_batch_definition_whole_dataframe("all")
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=batch, suite=suite)
        )
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name=name,
                validation_definitions=[definition],
                actions=[UpdateDataDocsAction(name="data_docs", site_names=[SITE])],
                result_format={
                    "result_format": "COMPLETE",
                    "unexpected_index_column_names": ["at", "id"],
                    "partial_unexpected_count": _SHOWN_VALUES,
                },
            )
        )
        table = values_as_text(tables[name])
        table = table.assign(at=range(len(table)))
        run = checkpoint.run(batch_parameters={"dataframe": table})
        found |= {result.expectation_config.meta["code"]: result for result in _results(run)}
    return found


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
    rows = tuple(sorted(int(entry["at"]) for entry in found))
    if bool(result.success) == bool(rows):
        raise RuntimeError(
            f"Great Expectations could not evaluate the rule {rule.code!r}: "
            f"{result.exception_info}"
        )
    return rows
