"""`ovis sync`: send to MLflow what waits because it did not answer, and end what is dead."""

import argparse
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "send to MLflow what waits because it did not answer, and end runs whose process died"
    commands.add_parser("sync", help=text, description=text)


def sync(_: argparse.Namespace) -> None:
    """Do both, and say what was done.

    Raises:
        ConfigError: If the store cannot be used.
    """
    # Imported here: mlflow takes seconds, which `ovis status` need not wait for.
    from tasks.tracking.replay import sync_store  # noqa: PLC0415

    sys.stdout.writelines(f"{line}\n" for line in sync_store())
