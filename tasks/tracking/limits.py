"""Names, settings and tags as MLflow takes them: flat, short, and without odd characters."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

#: Characters of a name that are sure to be taken; MLflow takes 250.
MAX_NAME = 200
#: Characters of a setting and of a tag; MLflow cuts off what is longer without a word.
MAX_PARAM, MAX_TAG = 6000, 5000
CUT = "... (cut; the whole is in settings.json)"


def taken_name(name: str) -> str:
    """Write a name as MLflow takes it: data call their sources what they like.

    A changed name ends with a digest of the right one, so that two names stay two.

    Example:
        >>> taken_name("loss/web-pages"), taken_name("loss/web+pages")
        ('loss/web-pages', 'loss/web_pages-793d8b48')
    """
    parts = [re.sub(r"[^\w. :-]", "_", part) for part in name.split("/")]
    taken = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    if taken == name and len(name) <= MAX_NAME:
        return name
    return f"{taken[:MAX_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Join nested keys by dots and turn values into text, as MLflow wants its parameters.

    Example:
        >>> flatten({"gate": {"max_regression": 1.0}, "seed": 0, "names": ["a", "b"]})
        {'gate.max_regression': '1.0', 'seed': '0', 'names': '["a", "b"]'}
    """
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, list | tuple | dict):
            flat[f"{prefix}{key}"] = json.dumps(value)
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def cut(text: str, limit: int) -> str:
    """Shorten a text to a limit, and say so in it.

    Example:
        >>> cut("short", 100)
        'short'
        >>> cut("a" * 100, 50)
        'aaaaaaaaaa... (cut; the whole is in settings.json)'
    """
    return text if len(text) <= limit else text[: limit - len(CUT)] + CUT
