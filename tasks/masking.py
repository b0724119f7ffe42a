"""One rule of what must not be read in a log, a report, a message or the tracker.

Hidden are: who logs in at an address, and how; values that look like keys of known services; what
stands after words such as `password=`; and the values of environment variables whose names say
that they are secret, wherever they turn up.  Digests stay: they are what a reader looks for.
"""

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from urllib.parse import quote

MASK = "***"
#: A shorter value cannot be told from a word, and its loss would deface every line it is in.
MIN_LENGTH = 8
#: Values that say nothing even where they are somebody's password.
COMMON_WORDS = {"anonymous", "disabled", "password", "postgres", "required"}

#: Names of variables and settings whose values are secret: HF_TOKEN, PGPASSWORD, hub_token.
#: Not TOKENIZERS_PARALLELISM, and not where a secret lies (AWS_KEY_FILE) or what it is called.
SECRET_NAME = re.compile(
    r"(KEY|TOKEN|WEBHOOK)S?\d*(_(?!FILE|PATH|DIR|NAME|ID)|$)"
    r"|(SECRET|PASSWORD|PASSWD|PASSPHRASE)(?!.*_(FILE|PATH|DIR|NAME)$)"
)

#: A secret and what stands before it, which stays.
BEHIND = (
    # scheme://user:password@host; a password with a slash must be encoded in an address.
    (r"://", r"[^\s/?#]+(?=@)"),
    # Signed addresses: S3, Azure, and interfaces that take their key in the query.
    (
        r"(?i:[?&][\w.-]*(?:token|key|secret|password|signature|credential|\bsig)[\w.-]*=)",
        r"[^&\s\"'<>]+",
    ),
    # An incoming webhook is its own password.
    (r"https://hooks\.slack(?:-gov)?\.com/", r"[\w/-]+"),
    (r"(?i:authorization[\"']?\s*[:=]\s*[\"']?(?:(?:basic|bearer|token)\s+)?)", r"[^\s\"',}]+"),
    (r"\bBearer\s+", r"[\w.~+/=-]{8,}"),
    (r"\bBasic\s+", r"(?=\S*[\d=+/])[A-Za-z0-9+/]{8,}={0,2}"),
    # Settings in text: libpq's `password=...`, a line of YAML, a field of JSON.
    (r"(?i:(?:password|passwd|passphrase|secret)[\"']?\s*[:=]\s*[\"']?)", r"[^\s\"',;&}]{8,}"),
    (
        r"(?i:(?:secret|access|api|private|auth)[_-]?key[\"']?\s*[:=]\s*[\"']?)",
        r"[^\s\"',;&}]{8,}",
    ),
    (r"(?i:(?:auth|access|api|hub)[_-]?token[\"']?\s*[:=]\s*[\"']?)", r"[^\s\"',;&}]{8,}"),
)
#: Keys that their services made recognisable.
KEYS = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bhf_[A-Za-z0-9]{20,}",
    r"(?<![\w-])sk-(?=[\w-]*\d)[\w-]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"\bgithub_pat_\w{20,}",
    r"\bglpat-[\w-]{20,}",
    r"\bpn[ub]_[A-Za-z0-9]{20,}",  # Prefect Cloud
    r"\bpypi-[\w-]{20,}",
    r"\bxox[a-z]-[\w-]{10,}",
    r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+",  # JSON web tokens
)
PATTERNS = [re.compile(f"({before}){secret}") for before, secret in BEHIND]
PATTERNS += [re.compile(f"(){key}") for key in KEYS]


def masked(text: str) -> str:
    """Return a text without the secrets in it.

    Example:
        >>> masked("cannot reach postgresql://me:pa55word@db.example:5432/mlflow")
        'cannot reach postgresql://***@db.example:5432/mlflow'
        >>> masked("Authorization: Bearer abcdef0123456789")
        'Authorization: Bearer ***'
        >>> masked("sha256 is " + 8 * "0123abcd")
        'sha256 is 0123abcd0123abcd0123abcd0123abcd0123abcd0123abcd0123abcd0123abcd'
    """
    for value in _secret_values():
        text = text.replace(value, MASK)
    for pattern in PATTERNS:
        text = pattern.sub(rf"\g<1>{MASK}", text)
    return text


def masked_bytes(output: bytes) -> bytes:
    """Return output without the secrets in it; what is no text stays as it is."""
    return masked(output.decode(errors="surrogateescape")).encode(errors="surrogateescape")


def is_secret(name: str, value: str) -> bool:
    """Tell whether a setting is a secret by its name or by the form of its value.

    Example:
        >>> is_secret("hub_token", "abcdefgh"), is_secret("model", "s3://bucket/tiny")
        (True, False)
    """
    is_by_name = is_secret_name(name) and _is_worth_hiding(value)
    return is_by_name or any(pattern.search(value) for pattern in PATTERNS)


def masked_value(name: str, value: str) -> str:
    """Return the value of a setting: nothing of it is shown where its name says it is secret.

    Example:
        >>> masked_value("train.hub_token", "abcdefgh"), masked_value("train.seed", "42")
        ('***', '42')
    """
    return MASK if is_secret_name(name) and _is_worth_hiding(value) else masked(value)


def is_secret_name(name: str) -> bool:
    """Tell whether the value of a variable or setting of this name is a secret.

    Example:
        >>> [is_secret_name(name) for name in ("AWS_SECRET_ACCESS_KEY", "TOKENIZERS_PARALLELISM")]
        [True, False]
    """
    return SECRET_NAME.search(name.upper().replace(".", "_").replace("-", "_")) is not None


def mask_logging() -> None:
    """Mask every record that this process logs from now on, whoever logs it and wherever to.

    Libraries have handlers of their own, which a filter on ours would not reach.
    """
    make = logging.getLogRecordFactory()
    if getattr(make, "is_masking", False):
        return

    def make_masked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # does not fit its arguments; handlers say so
            return record
        if (hidden := masked(message)) != message:
            record.msg, record.args = hidden, ()
        if record.exc_info and record.exc_info[0] is not None:
            # Where formatters look first.
            record.exc_text = masked_traceback(*record.exc_info)
        return record

    make_masked.is_masking = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_masked)


def mask_tracebacks() -> None:
    """Mask what Python prints of an exception that nobody caught."""
    sys.excepthook = lambda *trace: sys.stderr.write(f"{masked_traceback(*trace)}\n")


def masked_traceback(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> str:
    """Return what Python would print of an exception, without the secrets in it."""
    return masked("".join(traceback.format_exception(kind, error, trace))).rstrip()


def _secret_values() -> list[str]:
    """Return the secrets of the environment, as they are and as they are quoted; longest first."""
    found = {
        spelling
        for name, value in os.environ.items()
        if is_secret_name(name) and _is_worth_hiding(value)
        for spelling in _spellings(value)
    }
    return sorted(found, key=len, reverse=True)


def _spellings(value: str) -> Iterator[str]:
    yield value
    yield value.strip()
    yield quote(value, safe="", errors="surrogateescape")
    yield json.dumps(value)[1:-1]


def _is_worth_hiding(value: str) -> bool:
    text = value.strip()
    if len(text) < MIN_LENGTH or text.lower() in COMMON_WORDS:
        return False
    # A number of tokens is a setting, not a token.
    return not (text.isdigit() and len(text) < 2 * MIN_LENGTH)
