"""What pages that show samples share: which samples, and that data is text, never markup.

Pages load nothing from elsewhere; whatever comes from data is escaped, and what hides in it shown.
"""

import hashlib
import heapq
from collections.abc import Iterable
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ovis_model.data.checks.label_mask import visible

#: Samples of a sheet.
MAX_SAMPLES = 24
#: A text is cut after so many characters: a turn may be a whole book.
MAX_CHARACTERS = 2000
#: Where the templates are that pages share.
TEMPLATES = "ovis_model.data.checks"


def choose_samples(
    kinds: Iterable[tuple[str, str]], *, limit: int = MAX_SAMPLES, seed: int = 0
) -> list[int]:
    """Choose samples for the sheet: as many of each kind as there is room for.

    Which ones depends on their ids and the seed alone, not on their order or number, so that
    the sheet of a growing dataset changes little.  Memory is bounded.

    Args:
        kinds: Id and kind of every sample.
        limit: Most samples to choose.
        seed: Another seed chooses others.

    Returns:
        Places among the samples, in ascending order.

    Example:
        >>> choose_samples([("a", "text"), ("b", "text"), ("c", "image")], limit=2)
        [0, 2]
    """
    kept: dict[str, list[tuple[int, int]]] = {}
    for place, (sample_id, kind) in enumerate(kinds):
        digest = hashlib.sha256(f"{seed}:{sample_id}".encode("utf-8", "surrogatepass")).digest()
        # Negative, as Python's heaps give the smallest: the one with the largest rank leaves.
        entry = (-int.from_bytes(digest[:8], "big"), -place)
        heap = kept.setdefault(kind, [])
        (heapq.heappush if len(heap) < limit else heapq.heappushpop)(heap, entry)
    queues = {kind: sorted(heap, reverse=True) for kind, heap in sorted(kept.items())}
    in_turn = (
        -queue[turn][1] for turn in range(limit) for queue in queues.values() if turn < len(queue)
    )
    return sorted(place for place, _ in zip(in_turn, range(limit), strict=False))


@cache
def page_environment(package: str = TEMPLATES) -> Environment:
    """Return the templates of a package, and those shared here, with everything escaped."""
    places = dict.fromkeys((package, TEMPLATES))
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(place, package_path="") for place in places]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["clip"] = _clip
    environment.globals["max_characters"] = MAX_CHARACTERS
    return environment


def _finalize(value: Any) -> Any:
    """Show what hides in a text; what macros made is markup and stays as it is."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return visible(value) if is_text else value


def _clip(text: str, limit: int) -> str:
    hidden = len(text) - limit
    return f"{text[:limit]} … and {hidden:,} more characters" if hidden > 0 else text
