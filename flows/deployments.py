"""Schedules: a flow and a time, nothing else."""

import os
import sys

from flows.retrain import retrain
from ovis_model.errors import ConfigError

#: Mondays, 02:00 UTC.  CRON in the environment sets another time.
CRON = "0 2 * * 1"


def serve_retrain() -> None:
    """Serve the retrain flow on its schedule until interrupted.

    One run at a time, everywhere: DVC holds one lock per working tree.

    Raises:
        ConfigError: If CRON is not a time.
    """
    cron = os.environ.get("CRON", CRON)
    try:
        retrain.serve(name="weekly", cron=cron, limit=1, global_limit=1)
    except ValueError as error:
        raise ConfigError(f"CRON={cron!r} is not a schedule; an example is {CRON!r}") from error


if __name__ == "__main__":
    try:
        serve_retrain()
    except ConfigError as error:
        sys.exit(str(error))
