"""Run retrain once, or serve every flow: `python -m flows retrain`, `python -m flows schedule`.

python -m flows retrain --reason "the floor was raised" --force

A local Prefect server is started for it, unless one is running or PREFECT_API_URL names one.
The flow gets a process of its own: Prefect delivers its last logs and events when that ends,
and the server has to be there for them.
"""

import sys

from flows.server import server
from ovis_model.errors import ConfigError, OvisError, StageError
from tasks import _processes, environment, heartbeats
from tasks.masking import masked
from tasks.notifications import notify
from tasks.operations import Operations
from tasks.params import Params

MODULES = {"retrain": "flows.retrain", "schedule": "flows.deployments"}
USAGE = f"usage: python -m flows {{{','.join(MODULES)}}}"


def main(arguments: list[str]) -> int:
    """Do what the command line asks and return the exit code."""
    if not arguments or arguments[0] not in MODULES:
        print(USAGE, file=sys.stderr)
        return 2
    what, *options = arguments
    environment.apply()
    _processes.stop_cleanly_on_signals()
    try:
        Params.read()  # a typo is told before a server is started
        Operations.read()
        with server() as url:
            print(f"Prefect server: {url}", flush=True)
            return _run(what, options)
    except ConfigError as error:
        print(masked(str(error)), file=sys.stderr)
        notify("failure", f"{what} did not start", str(error))
        return 2
    except OvisError as error:
        print(masked(f"{what} failed: {error}"), file=sys.stderr)
        notify("failure", f"{what} did not start", str(error))
        return 1
    except KeyboardInterrupt:
        print(f"{what} was stopped; nothing is left running", file=sys.stderr)
        return 130


def _run(what: str, options: list[str]) -> int:
    try:
        with heartbeats.beating(what):
            command = [sys.executable, "-m", MODULES[what], *options]
            _processes.run(command, on_output=_show)
    except StageError:
        return 1  # it has said why itself
    return 0


def _show(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
