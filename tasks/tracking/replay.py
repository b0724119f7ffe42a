"""What earlier processes left: records that were not sent, and runs that seem to go on.

`ovis sync` does both; so does every step that begins, and whoever calls `reconcile`.
"""

import logging

from ovis_model.errors import ConfigError
from tasks._mlflow import (
    MlflowClient,
    RunStatus,
    experiment_id,
    impatient,
    setup,
    told,
)
from tasks._process_identity import has_ended
from tasks.masking import masked
from tasks.tracking.delivery import Delivery
from tasks.tracking.facts import PROCESS
from tasks.tracking.spool import SPOOL, Spool, left_behind

MAX_RUNS = 1000

logger = logging.getLogger(__name__)


def sync_store() -> list[str]:
    """Send what waits, end what is dead, and say what was done.

    Raises:
        ConfigError: If the store cannot be used.
    """
    with impatient():
        uri = setup()
        client = MlflowClient(tracking_uri=uri)
        lines = [f"{replay(client, uri)} records sent to {masked(uri)}"]
        lines += [f"marked as killed: {name}" for name in reconcile(client)]
    waiting = len(left_behind())
    if waiting:
        lines.append(f"still in {SPOOL}: {waiting} of running processes or for another store")
    return lines


def replay(client: MlflowClient, uri: str) -> int:
    """Send what dead processes left for this store, the oldest first.

    What cannot be sent now does not keep the rest from it.

    Returns:
        How many records that were.

    Raises:
        ConfigError: If the store cannot be used, or something could not be sent.
    """
    sent = 0
    failures: list[ConfigError] = []
    for spool in left_behind():
        with spool.locked() as held:
            try:
                sent += _replay_one(client, uri, spool) if held else 0
            except ConfigError as error:
                logger.warning("%s stays for now: %s", spool.folder, error)
                failures.append(error)
        if failures:
            with told(uri):
                experiment_id(client)  # a store that is away would be waited for spool by spool
    if failures:
        raise failures[0]
    return sent


def _replay_one(client: MlflowClient, uri: str, spool: Spool) -> int:
    store = next((record["store"] for record in spool.all() if "store" in record), None)
    if store and store != masked(uri):
        logger.info("%s is for another store, %s", spool.folder, store)
        return 0
    spool.reread()  # another process may have gone on with it before we had the lock
    waiting = spool.count()
    delivery = Delivery(client, spool, uri)
    delivery.advance()
    delivery.kill_open_runs()
    spool.remove()
    return waiting


def reconcile(client: MlflowClient | None = None) -> list[str]:
    """Mark runs as killed that are RUNNING in the store, while their process is gone from here.

    Args:
        client: Of a store that is set up; None is for this working tree's.

    Returns:
        Their names.

    Raises:
        ConfigError: If the store cannot be used.
    """
    client = client or MlflowClient(tracking_uri=setup())
    killed = []
    with told():
        running = client.search_runs(
            [experiment_id(client)], "attributes.status = 'RUNNING'", max_results=MAX_RUNS
        )
        for run in running:
            process = run.data.tags.get(PROCESS)
            if process and has_ended(process):
                client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.KILLED))
                killed.append(str(run.info.run_name))
    return killed
