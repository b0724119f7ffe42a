"""The annotation files people have: every encoding and format in, one stream of records out.

`ovis_model.data.annotations.files` turns bytes into raw records and `foreign_formats` turns these
into the seed's layout.  A file that cannot be read is an error.  A single record that is broken is
not: it comes out with its `problem`, so that validation can report all of them at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from ovis_model.data.annotations.coordinates import SizeOf, check_convention
from ovis_model.data.annotations.files import GENERATED_ID_PREFIX, Record, read_raw_records
from ovis_model.data.annotations.foreign_chat import Context
from ovis_model.data.annotations.foreign_formats import (
    CONVERTERS,
    FORMATS,
    Converter,
    is_canonical,
    most_common_format,
)
from ovis_model.errors import ConfigError, DataError

__all__ = ["FORMATS", "GENERATED_ID_PREFIX", "Record", "read_records"]

#: How many records are looked at to tell a file's format.
NUM_RECORDS_TO_DETECT = 100


def read_records(
    path: Path,
    *,
    format: str = "auto",  # noqa: A002 - as params.yaml spells it
    coordinates: str = "ovis",
    size_of: SizeOf | None = None,
) -> Iterator[Record]:
    """Read one annotation file; its records come as the seed writes them.

    Args:
        path: The file, in any encoding that `ovis_model.data.annotations.files` names.
        format: A name of `FORMATS`; "auto" tells it from the first records.
        coordinates: How boxes are written, one of `coordinates.CONVENTIONS` beside this file.
        size_of: Returns width and height of a picture, for coordinates in pixels.

    Raises:
        ConfigError: If the format is not one that a single file can have, or the way to write
            coordinates is not known.
        DataError: If the file is missing, empty, damaged, not JSON or holds no samples.
    """
    check_convention(coordinates)
    if format not in ("auto", *CONVERTERS):
        known = ", ".join(FORMATS)
        hint = "; a datainfo file is an index, read by `read_annotations`"
        raise ConfigError(
            f"{path}: unknown format {format!r}; validate.format is one of {known}"
            + (hint if format == "datainfo" else "")
        )
    records = read_raw_records(path)
    if format == "auto":
        first = list(islice(records, NUM_RECORDS_TO_DETECT))
        format = most_common_format(record.value for record in first)  # noqa: A001
        records = chain(first, records)
    context = Context(coordinates, size_of)
    may_be_canonical = format == "ovis" and coordinates == "ovis"
    for record in records:
        if may_be_canonical and is_canonical(record.value):
            yield record
        else:
            yield from convert(record, CONVERTERS[format], context)


def convert(record: Record, converter: Converter, context: Context) -> Iterator[Record]:
    """Turn one raw record into records of the seed's layout: one, unless it holds several."""
    if record.problem is not None or not isinstance(record.value, Mapping):
        yield record
        return
    try:
        samples = converter(record.value, context)
    except DataError as error:
        yield replace(record, problem=str(error))
        return
    for sample in samples:
        place = f"{record.place}, {sample.part}" if sample.part else record.place
        yield Record(place, sample.value, notes=sample.notes)
