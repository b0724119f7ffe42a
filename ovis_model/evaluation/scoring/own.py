"""Rules for data of one's own.

exact        the answer is the true one, letter by letter
contains     the true answer stands in it, letters' case apart
regex        a pattern is found, or takes the answer out of the text
number       the last number is near enough
json_field   a field of the JSON that was written has the true value
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from ovis_model.evaluation.scoring.mark import Mark

#: A sign counts only where no number ends; commas only between groups of three digits.
_NUMBER = re.compile(
    r"(?:(?<![\d.])[-+])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
)
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
_MISSING = object()


def exact(answer: str, truth: str) -> Mark:
    r"""Compare character by character after removing white space at both ends.

    Example:
        >>> exact(" 7\n", "7").correct, exact("07", "7").correct
        (True, False)
    """
    given = answer.strip()
    correct = given == truth.strip()
    return Mark(correct, float(correct), invalid=not given)


def contains(answer: str, truth: str) -> Mark:
    """Look for the true answer in the answer, whatever the case of letters.

    Example:
        >>> contains("It is a RED car.", "red car").correct
        True
    """
    correct = truth.strip().casefold() in answer.casefold()
    return Mark(correct, float(correct), invalid=not answer.strip())


def regex(answer: str, truth: str, pattern: str = "") -> Mark:
    r"""Take the answer out of the text with a pattern, or use the truth as one.

    Args:
        answer: What the model wrote.
        truth: What the pattern's first group, or all of its match, has to equal; without a
            pattern, itself the pattern that has to be found.
        pattern: A regular expression, or "".

    Example:
        >>> regex("Total: 42 EUR", "42", r"Total: (\d+)").correct
        True
        >>> regex("7 apples", r"\b7\b").correct
        True
    """
    if not pattern:
        correct = re.search(truth, answer) is not None
        return Mark(correct, float(correct), invalid=not answer.strip())
    found = re.search(pattern, answer)
    if found is None:
        return Mark(correct=False, value=0.0, invalid=True)
    taken = (found[1] or "") if found.re.groups else found[0]
    correct = taken.strip() == truth.strip()
    return Mark(correct, float(correct), extracted=taken)


def number(answer: str, truth: str, *, tolerance: float = 0.0, relative: float = 0.0) -> Mark:
    """Compare the last number of the answer with the true one.

    Commas between thousands are left out; a unit, a currency or a percent sign does not count.

    Args:
        answer: What the model wrote.
        truth: The true number.
        tolerance: How far apart they may be.
        relative: The same as a fraction of the true number; the larger of both holds.

    Raises:
        ValueError: If the truth holds no number.

    Example:
        >>> number("About $1,234.50.", "1234", tolerance=1).correct
        True
    """
    wanted = last_number(truth)
    if wanted is None:
        raise ValueError(f"{truth!r} holds no number")
    given = last_number(answer)
    if given is None:
        return Mark(correct=False, value=0.0, invalid=True)
    correct = math.isclose(
        given, wanted, rel_tol=0, abs_tol=max(tolerance, relative * abs(wanted))
    )
    return Mark(correct, float(correct), extracted=f"{given:.12g}")


def last_number(text: str) -> float | None:
    """Return the last number of a text, None if there is none.

    Example:
        >>> last_number("3 of 1,200"), last_number("-.5e1 m"), last_number("none")
        (1200.0, -5.0, None)
    """
    found = _NUMBER.findall(text.replace("\N{MINUS SIGN}", "-"))
    return float(found[-1].replace(",", "")) if found else None


def json_field(answer: str, truth: str, field: str) -> Mark:
    """Compare one field of the JSON object in the answer.

    Args:
        answer: What the model wrote: JSON, in a fence, or with text around it.
        truth: The true value; a number is compared as a number, text without blanks around it.
        field: Where it stands, such as `total` or `items.0.price`.

    Example:
        >>> json_field('Sure: {"total": 12.50}', "12.5", "total").correct
        True
    """
    value = next((_dig(document, field) for document in _documents(answer)), _MISSING)
    if value is _MISSING:
        return Mark(correct=False, value=0.0, invalid=True)
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    correct = _same(written.strip(), truth.strip())
    return Mark(correct, float(correct), extracted=written)


def _documents(text: str) -> Iterator[Any]:
    """Yield what is JSON of: all of the text, its fences, and what is between outer braces."""
    braced = text[text.find("{") : text.rfind("}") + 1]
    for part in (text, *_FENCED.findall(text), braced):
        try:
            yield json.loads(part)
        except (ValueError, RecursionError):
            continue


def _dig(document: Any, field: str) -> Any:
    for key in field.split("."):
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and key.isdecimal() and int(key) < len(document):
            document = document[int(key)]
        else:
            return _MISSING
    return document


def _same(written: str, truth: str) -> bool:
    if written == truth:
        return True
    try:
        return float(written) == float(truth)
    except ValueError:
        return False
