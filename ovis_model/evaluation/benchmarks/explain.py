"""What is wrong with somebody's file, in one line, with the place."""

from collections.abc import Iterator
from contextlib import contextmanager

import yaml
from pydantic import ValidationError

from ovis_model.errors import DataError


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Put a place in front of what is wrong there.

    Raises:
        DataError: For a ValueError, a pydantic error among them, or a DataError inside.
    """
    try:
        yield
    except (ValueError, yaml.YAMLError, DataError) as error:
        raise DataError(f"{place}: {explain(error)}") from error


def explain(error: Exception) -> str:
    """Tell what is wrong; of a pydantic error every finding, with its key."""
    if isinstance(error, yaml.YAMLError):
        return f"not valid YAML: {error}"
    if not isinstance(error, ValidationError):
        return str(error)
    findings = []
    for finding in error.errors():
        key = ".".join(str(part) for part in finding["loc"])
        message = finding["msg"].removeprefix("Value error, ")
        findings.append(f"{key}: {message}" if key else message)
    return "; ".join(findings)
