"""Run one step: `python -m tasks train`.  DVC calls this; people type `make train`.

Exit codes: 0 done, 1 the step failed, 2 the configuration cannot be used, 69 a server that is
needed does not answer, 75 training was asked to stop and goes on when it is run again, 128 + n
ended by signal n.
"""

import importlib
import logging
import signal
import sys
from functools import partial
from types import TracebackType

from ovis_model.errors import (
    ConfigError,
    OvisError,
    StageStopped,
    StageUnavailableError,
    UnavailableError,
)
from ovis_model.training import exit_codes
from tasks import STEPS, _processes, environment, heartbeats
from tasks._step_inputs import unchanged_inputs
from tasks.masking import masked, masked_traceback
from tasks.notifications import is_told_by_a_flow, notify
from tasks.params import Params

USAGE = f"usage: python -m tasks {{{','.join(STEPS)}}}"


def main(arguments: list[str]) -> int:
    """Run the step named on the command line and return the exit code."""
    if len(arguments) != 1 or arguments[0] not in STEPS:
        print(USAGE, file=sys.stderr)
        return 2
    step = arguments[0]
    environment.apply()
    _processes.die_with_parent(signal.SIGTERM)
    _processes.stop_cleanly_on_signals()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    sys.excepthook = partial(_unexpected, step)
    try:
        params = Params.read()
        # After the params are read: mlflow takes seconds, which a typo need not wait for.
        from tasks.tracking.steps import track  # noqa: PLC0415

        with heartbeats.beating(step, tracked=True), unchanged_inputs(step):
            # One step's imports, not five: DVC starts this once per stage.
            module = importlib.import_module(f"tasks.{step}")
            with track(step, params):
                module.run(params)
    except ConfigError as error:
        _say(f"{step}: {error}")
        _tell(step, str(error))
        return StageUnavailableError.exit_code if isinstance(error, UnavailableError) else 2
    except StageStopped as stop:
        _say(f"{step}: {stop}")
        return exit_codes.STOPPED
    except OvisError as error:
        _say(f"{step} failed: {error}")
        _tell(step, str(error))
        return 1
    except KeyboardInterrupt as interrupt:
        name = str(interrupt) or "SIGINT"
        _say(f"{step} was stopped by {name}; the next run goes on from here")
        return 128 + signal.Signals[name]
    return 0


def _say(text: str) -> None:
    print(masked(text), file=sys.stderr, flush=True)


def _tell(step: str, text: str) -> None:
    if not is_told_by_a_flow():
        notify("failure", f"{step} failed", text, {"step": step})


def _unexpected(
    step: str, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Say and tell what no sentence of ours foresaw."""
    _say(masked_traceback(kind, error, trace))
    _tell(step, f"{kind.__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
