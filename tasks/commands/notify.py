"""`ovis notify`: whether a message arrives where operations.yaml says.

ovis notify
ovis notify --kind drift
"""

import argparse
import os
import sys
from typing import Any

from tasks.notifications import compose, deliver
from tasks.operations import KINDS, Operations


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "send a message to the webhook and to Slack, and say what became of it"
    parser: argparse.ArgumentParser = commands.add_parser("notify", help=text, description=text)
    parser.add_argument("--kind", choices=KINDS, default="failure", help="(default: %(default)s)")


def try_out(options: argparse.Namespace) -> int:
    """Send a message and say what became of it.

    Returns:
        The exit code: 1 if it did not arrive somewhere.

    Raises:
        ConfigError: If operations.yaml cannot be used.
    """
    config = Operations.read().notify
    message = compose(config, options.kind, "this is only a try", "`ovis notify` sent it", {})
    outcomes = deliver(config, message)
    for channel, target in (("webhook", config.webhook), ("slack", config.slack)):
        if channel in outcomes:
            said = outcomes[channel] or "told"
        elif os.environ.get(target.address, "").strip():
            said = f"is not to tell {options.kind}"
        else:
            said = f"{target.address} is not set"
        sys.stdout.write(f"{channel:8} {said}\n")
    return int(any(outcomes.values()))
