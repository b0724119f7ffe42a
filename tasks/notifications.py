"""Tell people: one message to a log, a file, a webhook and Slack, as operations.yaml says.

Telling is never the reason why something fails or waits: whatever an address does, `notify`
returns within `notify.seconds` and raises nothing.  It does not return before, so that a message
is out when the process that sends it ends.
"""

import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import httpx

from ovis_model.errors import ConfigError
from tasks._account import account
from tasks.artifacts import NOTIFICATIONS
from tasks.environment import FLOW_RUN
from tasks.masking import masked
from tasks.operations import AddressConfig, Kind, NotifyConfig, Operations

#: Characters; Slack cuts longer messages, and nobody reads them.
MAX_TEXT = 3000
LEVELS = {"failure": logging.ERROR, "gate_refused": logging.WARNING, "drift": logging.WARNING}
#: What can go wrong on the way to an address, from its spelling to its answer.
POST_ERRORS = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError)
THREAD = "notify"

logger = logging.getLogger(__name__)
# httpx logs every address it asks, and these are secrets.
logging.getLogger("httpx").addFilter(lambda record: record.threadName != THREAD)


@dataclass(frozen=True)
class Message:
    """What every channel says, with the secrets masked."""

    time: str
    kind: str
    title: str
    text: str
    facts: dict[str, str | int | float | None]
    project: str


def notify(
    kind: Kind, title: str, text: str = "", facts: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Tell whoever wants to hear of it; raises nothing and takes `notify.seconds` at most.

    Args:
        kind: What happened; operations.yaml says which channels tell it.
        title: One sentence.
        text: More of it, in any number of lines.
        facts: Names and values; who, where and in which flow run is added.
    """
    config = _configuration()
    message = compose(config, kind, title, text, facts)
    if kind in config.log.kinds:
        _log(message)
    if kind in config.file.kinds:
        _append(asdict(message))
    for channel, problem in deliver(config, message).items():
        if problem:
            logger.warning("%s was not told of it: %s", channel, problem)
            told = {"time": message.time, "kind": "undelivered", "title": title, "text": problem}
            _append({**told, "facts": {"channel": channel}, "project": message.project})


def is_told_by_a_flow() -> bool:
    """Tell whether this process is a step of a flow run, which tells of its failure."""
    return bool(os.environ.get(FLOW_RUN))


def compose(
    config: NotifyConfig, kind: Kind, title: str, text: str, facts: Mapping[str, object]
) -> Message:
    """Make a message of it: who and where is added, secrets are masked, what is long is cut."""
    added = {"who": account(), "where": socket.gethostname()}
    if is_told_by_a_flow():
        added["flow_run"] = os.environ[FLOW_RUN]
    return Message(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        kind=kind,
        title=masked(title),
        text=_shortened(masked(text)),
        facts={name: _fact(value) for name, value in {**added, **facts}.items()},
        project=config.project or Path.cwd().name,
    )


def deliver(config: NotifyConfig, message: Message) -> dict[str, str]:
    """Post a message to the addresses that want its kind, all at once.

    Returns:
        Per channel what went wrong, naming the host only; "" if the message is there.  Channels
        whose variable is not set are left out.
    """
    bodies = {"webhook": asdict(message), "slack": as_slack(message)}
    addresses = {
        channel: address
        for channel in bodies
        if (address := _address(getattr(config, channel), message.kind))
    }
    late = f"no answer within {config.seconds:g} s"
    outcomes = {name: f"{host_of(address)}: {late}" for name, address in addresses.items()}

    def post(channel: str) -> None:
        outcomes[channel] = _post(addresses[channel], bodies[channel], config.seconds)

    # Daemons: a server that never ends its answer does not keep this process from ending.
    threads = [
        threading.Thread(target=post, args=(channel,), name=THREAD, daemon=True)
        for channel in addresses
    ]
    deadline = time.monotonic() + config.seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(outcomes)


def as_slack(message: Message) -> dict[str, str]:
    """Return what Slack's incoming webhooks take; no text can call a channel or make a link."""
    lines = [f"*{_escaped(message.title)}* ({_escaped(message.project)}, {message.kind})"]
    if message.text:
        lines.append(f"```{_escaped(message.text)}```")
    lines += [_escaped(f"{name}: {value}") for name, value in message.facts.items()]
    return {"text": "\n".join([*lines, message.time])}


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("```", "'''")


def host_of(address: str) -> str:
    """Return the part of an address that is no secret.

    Example:
        >>> host_of("https://hooks.slack.com/services/T0/B0/secret"), host_of("http://[secret")
        ('hooks.slack.com', 'what is no address')
    """
    try:
        return urlsplit(address).hostname or "what is no address"
    except ValueError:
        return "what is no address"


def _address(target: AddressConfig, kind: str) -> str:
    return os.environ.get(target.address, "").strip() if kind in target.kinds else ""


def _post(address: str, body: Mapping[str, Any], seconds: float) -> str:
    """Post JSON and return what went wrong; nothing of the answer but its head is read."""
    try:
        with (
            httpx.Client(timeout=seconds, follow_redirects=False) as client,
            client.stream("POST", address, json=body) as answer,
        ):
            status, kind = answer.status_code, answer.headers.get("content-type", "")
    except POST_ERRORS as error:
        # Its text may hold the address.
        return f"{host_of(address)}: {type(error).__name__}"
    if not 200 <= status < 300:
        return f"{host_of(address)} answered {status}"
    if kind.startswith("text/html"):
        return f"{host_of(address)} answered with a web page"
    return ""


def _configuration() -> NotifyConfig:
    try:
        return Operations.read().notify
    except (ConfigError, OSError, ValueError) as error:
        logger.warning("people are told as the defaults say: %s", masked(str(error)))
        return NotifyConfig()


def _fact(value: object) -> str | int | float | None:
    """Return a value as JSON has it."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _shortened(masked(str(value)))


def _shortened(text: str) -> str:
    """Keep the beginning, which says what it is about, and the end, which says how it ended."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[: MAX_TEXT // 3]}\n...\n{text[-2 * MAX_TEXT // 3 :]}"


def _log(message: Message) -> None:
    # The text of a failure is an error's, which the log has or gets anyway.
    text = "" if message.kind == "failure" else message.text
    facts = ", ".join(f"{name} {value}" for name, value in message.facts.items())
    told = ": ".join(part for part in (message.kind, message.title, text) if part)
    logger.log(LEVELS.get(message.kind, logging.INFO), "%s (%s)", told, facts)


def _append(line: Mapping[str, Any]) -> None:
    """Add a line to the file: one write, so that those of several processes do not mix."""
    try:
        NOTIFICATIONS.parent.mkdir(parents=True, exist_ok=True)
        with NOTIFICATIONS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        logger.warning("%s was not written: %s", NOTIFICATIONS, error)
