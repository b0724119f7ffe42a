"""What `ovis data` writes for people: tables, and the label mask in colour.

Everything that comes from data goes through `plain`: a terminal obeys some characters.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovis_model.data.checks.diff import DataDiff
    from ovis_model.data.checks.statistics import Histogram, Statistics
    from ovis_model.data.checks.xray import Look, Medium

#: Names listed per line of a diff before the rest is only counted.
MAX_NAMES = 10
#: What a piece of the label mask is called, and its colour.
KINDS = {
    "supervised": ("learned", "\x1b[32m"),
    "read_only": ("read", "\x1b[2m"),
    "visual": ("media", "\x1b[36m"),
    "cut": ("cut off", "\x1b[31;9m"),
}
RESET = "\x1b[0m"


def plain(text: str) -> str:
    """Write what a terminal would obey as numbers."""
    from ovis_model.data.checks.label_mask import visible  # noqa: PLC0415 - only `ovis data` needs it

    return visible(text)


def look_as_text(look: "Look", part: str, where: str, *, colour: bool) -> str:
    """Describe one sample: its media, its tokens, and what is learned of it."""
    from ovis_model.data.checks.statistics import features_of, kind_of  # noqa: PLC0415 - as above

    sample = look.sample
    kinds = [kind_of(sample), *features_of(sample)]
    rows = [
        ("sample", sample.id),
        ("is", ", ".join([part, *(kind.replace("_", " ") for kind in kinds)])),
        ("in", where),
    ]
    if sample.source:
        rows.append(("from", sample.source))
    if sample.fit is not None:
        limits = sample.fit.model_dump(exclude_none=True)
        rows.append(("made to fit", ", ".join(f"{name} {limits[name]:,}" for name in limits)))
    rows += [("media", _medium_as_text(medium)) for medium in look.media]
    if look.num_tokens is None:
        rows.append(("tokens", f"not counted: {look.note}"))
    else:
        rows.append(("tokens", f"{look.num_tokens:,}, {look.num_supervised:,} learned"))
    lines = [f"{name:<12}{plain(text)}" for name, text in rows]
    return "\n".join([*lines, "", *_mask_lines(look, colour=colour)]) + "\n"


def _medium_as_text(medium: "Medium") -> str:
    if medium.problem is not None or medium.size is None:
        return f"{medium.path}: {medium.problem}"
    facts = [f"{medium.size[0]} x {medium.size[1]} px", f"{medium.num_bytes:,} bytes"]
    if medium.num_frames is not None:
        facts += [f"{medium.num_frames:,} frames", f"{medium.seconds:.2f} s"]
    return f"{medium.path}  {', '.join(facts)}"


def _mask_lines(look: "Look", *, colour: bool) -> Iterator[str]:
    """Give each piece its name in a column of its own, so that colour is not needed."""
    for piece in look.mask:
        name, code = KINDS[piece.kind]
        for number, line in enumerate(plain(piece.text).split("\n")):
            head = f"{name if number == 0 else '':<8}| "
            yield f"{head}{code}{line}{RESET}" if colour and line else f"{head}{line}".rstrip()


def statistics_as_text(
    found: "Statistics", folder: Path, parts: Mapping[str, int], problems: Sequence[str]
) -> str:
    """Tabulate counts and quantiles."""
    sides = ", ".join(f"{name} {count:,}" for name, count in parts.items())
    total = found.num_samples or 1
    counts = [
        (plain(name.replace("_", " ")), f"{count:,}", f"{100 * count / total:.1f} %")
        for name, count in (*found.kinds.items(), *found.sources.items())
    ]
    blocks = [
        [f"{found.num_samples:,} samples in {folder}: {sides}"],
        table(("kind or source", "samples", "share"), counts),
        _quantile_table([h for h in found.histograms if h.count]),
    ]
    if problems:
        blocks.append([f"{len(problems):,} samples could not be measured, the first: "])
        blocks[-1][0] += plain(problems[0])
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _quantile_table(histograms: Sequence["Histogram"]) -> list[str]:
    names = list(histograms[0].quantiles) if histograms else []
    rows = [
        (
            f"{found.name} ({found.unit})",
            *(f"{found.quantiles[name]:,}" for name in names),
            f"{found.mean:,.1f}",
            f"{found.count:,}",
        )
        for found in histograms
    ]
    return table(("size", *names, "mean", "values"), rows)


def diff_as_text(found: "DataDiff") -> str:
    """Tabulate what changed, with the first few names."""
    changed = {
        what: [name for name, found_of in found.changed.items() if what in found_of]
        for what in found.count_changes()
    }
    missing = {"before": found.missing_before, "after": found.missing_after}
    unreadable = {"before": found.unreadable_before, "after": found.unreadable_after}
    rows = [
        ("samples added", found.added),
        ("samples removed", found.removed),
        *((f"samples with another {what}", names) for what, names in changed.items()),
        ("media added", found.media_added),
        ("media removed", found.media_removed),
        ("media changed", found.media_changed),
        *((f"media missing, {when}", paths) for when, paths in missing.items() if paths),
        *((f"no samples, {when}", places) for when, places in unreadable.items() if places),
    ]
    head = f"{found.num_before:,} samples before, {found.num_after:,} after"
    body = table(
        ("what", "number", "which"),
        [(what, f"{len(names):,}", _list_names(names)) for what, names in rows],
    )
    return "\n".join([head, "", *body]) + "\n"


def _list_names(names: Sequence[str]) -> str:
    shown = [plain(name).replace("\n", " ") for name in names[:MAX_NAMES]]
    hidden = len(names) - len(shown)
    return ", ".join(shown) + (f" and {hidden:,} more" if hidden else "")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Align columns; those whose values are numbers to the right.

    Example:
        >>> table(("kind", "samples"), [("image", "1,200"), ("text", "3")])
        ['kind   samples', 'image    1,200', 'text         3']
    """
    lines = [tuple(head), *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [all(_is_number(value) for value in column[1:]) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            value.rjust(width) if is_right else value.ljust(width)
            for value, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]


def _is_number(text: str) -> bool:
    return text.removesuffix(" %").replace(",", "").replace(".", "").isdecimal()
