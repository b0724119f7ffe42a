"""Looks for a reason to train again, and starts a run of `retrain` if there is one.

Each look is a short flow run of its own, started every few minutes by its deployment.
"""

import time
from collections.abc import Callable
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.deployments import run_deployment

from flows.failures import tell_failure
from flows.triggers import Look, Memory, look_at_data, look_at_drift, remembering
from ovis_model.errors import OvisError, PromotionError, UnavailableError
from tasks import environment
from tasks._data_version import data_version, learned_version, unchanged
from tasks.artifacts import DRIFT_OF_RAW
from tasks.commands.drift import check
from tasks.operations import Operations, TriggersConfig
from tasks.params import Params

#: The deployment that a trigger starts.
ON_DEMAND = "retrain/on-demand"


@flow(name="on-new-data", on_failure=[tell_failure], on_crashed=[tell_failure])
def on_new_data() -> str:
    """Start a retrain if the raw data are new and have stayed so for a while."""
    environment.apply()
    raw = Path(Params.read().validation.raw_data)
    config = Operations.read().triggers
    if not raw.exists():
        return _say(f"there are no raw data in {raw} yet")
    with remembering() as (memory, remember):
        version, learned = data_version(raw), learned_version(raw)
        look = look_at_data(memory, version, learned, config, time.time())
        return _act(look, remember, tag="new-data")


@flow(name="on-drift", on_failure=[tell_failure], on_crashed=[tell_failure])
def on_drift() -> str:
    """Start a retrain if new raw data are not like those the champion learned from, once."""
    environment.apply()
    raw = Path(Params.read().validation.raw_data)
    config = Operations.read().triggers
    if not raw.exists():
        return _say(f"there are no raw data in {raw} yet")
    with remembering() as (memory, remember):
        look = look_for_drift(memory, remember, raw, config, time.time())
        return _act(look, remember, tag="drift")


def look_for_drift(
    memory: Memory,
    remember: Callable[[Memory], None],
    raw: Path,
    config: TriggersConfig,
    now: float,
) -> Look:
    """Measure drift of raw data that are new and have stayed so, once for each version.

    Args:
        memory: Of the looks before.
        remember: Keeps that a version could not be measured, so that it is told once.
        raw: Folder of the raw data.
        config: How long data must stay, and how many runs a day may start.
        now: Seconds since 1970.

    Raises:
        DataError: If one side cannot be read, or the data changed meanwhile.
    """
    version, learned = data_version(raw), learned_version(raw)
    new = look_at_data(memory, version, learned, config, now)
    if not new.due:
        return new
    if memory.measured != version:
        DRIFT_OF_RAW.unlink(missing_ok=True)  # of other data: no reason for a run
        done = memory.model_copy(update={"measured": version})
        # What is said of data that change meanwhile, or of a store that is away, is not of
        # this version: the next look measures it again.
        with unchanged(raw):
            try:
                check(raw, json_file=DRIFT_OF_RAW, html=DRIFT_OF_RAW.with_suffix(".html"))
            except (PromotionError, UnavailableError) as error:  # there is no champion yet
                return Look(f"drift was not measured: {error}", memory)
            except OvisError:
                if data_version(raw) == version:
                    remember(done)
                raise
        memory = done
    return look_at_drift(
        memory, DRIFT_OF_RAW, version=version, learned=learned, config=config, now=now
    )


def _act(look: Look, remember: Callable[[Memory], None], *, tag: str) -> str:
    """Start the run first and remember it then; the key keeps a second start from doubling it."""
    if look.due:
        run_deployment(
            ON_DEMAND,
            parameters={"reason": look.reason},
            idempotency_key=look.key,
            tags=[tag],
            timeout=0,
            as_subflow=False,
        )
    remember(look.memory)
    return _say(look.says)


def _say(text: str) -> str:
    get_run_logger().info(text)
    return text
