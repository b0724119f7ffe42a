"""The `ovis` command, for what is neither a step nor a flow."""

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ovis_model.errors import ConfigError, OvisError
from tasks import environment
from tasks._nodes import LOOPBACK
from tasks.commands import (
    compare,
    data,
    doctor,
    drift,
    evaluations,
    forget,
    gc,
    infer,
    lineage,
    notify,
    plan,
    promotions,
    reproduce,
    status,
    sync,
)
from tasks.masking import mask_tracebacks, masked

if TYPE_CHECKING:
    from collections.abc import Callable


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, do it, and return the exit code."""
    options = _parser().parse_args(arguments)
    environment.apply()
    mask_tracebacks()
    commands: dict[str, Callable[[], int | None]] = {
        "ui": lambda: show_ui(options.port),
        "infer": lambda: infer.infer(options),
        "data": lambda: data.data(options),
        "plan": lambda: plan.plan(options),
        "eval": lambda: evaluations.evaluate(options),
        "compare": lambda: compare.compare_runs(options),
        "promote": lambda: promotions.promote(options),
        "approve": lambda: promotions.approve(options),
        "reject": lambda: promotions.reject(options),
        "rollback": lambda: promotions.rollback(options),
        "promotions": lambda: promotions.promotions(options),
        "lineage": lambda: lineage.lineage(options),
        "drift": lambda: drift.drift(options),
        "reproduce": lambda: reproduce.reproduce(options),
        "forget": lambda: forget.forget(options),
        "gc": lambda: gc.collect(options),
        "notify": lambda: notify.try_out(options),
        "doctor": lambda: doctor.doctor(options),
        "status": lambda: status.status(options),
        "sync": lambda: sync.sync(options),
    }
    try:
        code = commands[options.command]()
    except ConfigError as error:
        sys.stderr.write(masked(f"ovis {options.command}: {error}\n"))
        return 2
    except OvisError as error:
        sys.stderr.write(masked(f"ovis {options.command}: {error}\n"))
        return 1
    return code or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ovis", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    status.add_parser(commands)
    doctor.add_parser(commands)
    ui = commands.add_parser("ui", help="MLflow's pages, for this machine only")
    ui.add_argument("--port", type=int, default=5000, help="TCP port (default: %(default)s)")
    infer.add_parser(commands)
    data.add_parser(commands)
    plan.add_parser(commands)
    compare.add_parser(commands)
    evaluations.add_parser(commands)
    promotions.add_parsers(commands)
    lineage.add_parser(commands)
    drift.add_parser(commands)
    reproduce.add_parser(commands)
    forget.add_parser(commands)
    gc.add_parser(commands)
    notify.add_parser(commands)
    sync.add_parser(commands)
    return parser


def show_ui(port: int) -> None:
    """Become MLflow's server for the store of this working tree.

    Raises:
        ConfigError: If the port is taken, or the store is a server with pages of its own.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if given.startswith(("http://", "https://")):
        raise ConfigError(f"MLFLOW_TRACKING_URI names a server; open {given} in a browser")
    check_port(port)
    # Imported here: mlflow takes seconds, which `ovis status` need not wait for.
    from tasks import _mlflow  # noqa: PLC0415
    from tasks.tracking.replay import sync_store  # noqa: PLC0415

    uri = _mlflow.setup()
    sys.stdout.writelines(f"{line}\n" for line in sync_store())
    # Its background jobs are not used here and take 600 MB.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # Not as an argument: everybody on the machine reads those, and it may hold a password.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
    sys.stdout.write(f"MLflow: http://{LOOPBACK}:{port}  (Ctrl+C ends it)\n")
    sys.stdout.flush()
    program = Path(sys.executable).parent / "mlflow"
    os.execv(program, ["mlflow", "ui", "--host", LOOPBACK, "--port", str(port)])


def check_port(port: int) -> None:
    """Make sure that nobody listens on a port of this machine.

    Raises:
        ConfigError: If somebody does.
    """
    with socket.socket() as probe:
        # As servers do: a connection that was just closed does not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"port {port} on {LOOPBACK} cannot be used ({error}); choose another one, for "
                f"example: make ui PORT={port + 1}"
            ) from error


if __name__ == "__main__":
    sys.exit(main())
