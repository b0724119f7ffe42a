"""Environment variables that every entry point sets before it imports anything heavy.

Two kinds: nobody phones home, and state stays inside the working tree.  A value that the
user exported wins, so a server elsewhere or an online hub is one variable away.  The Makefile
exports the same list for tools that are started by hand in its recipes.
"""

import os
from pathlib import Path

from tasks.artifacts import PREFECT_HOME
from tasks.masking import mask_logging

#: Set for the steps of a flow run, to its id.  The flow tells of their failures: once, when its
#: retries are used up, and also of a step that was killed and can tell nothing.
FLOW_RUN = "OVIS_FLOW_RUN"
DEFAULTS = {
    # The word, not 1: MLflow compares with "true".
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "False",
    "DVC_NO_ANALYTICS": "1",
    # A model hub is never asked: models are folders named in params.yaml.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that spin while they wait made training 4 to 8 times slower on two cores.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def apply() -> None:
    """Set what the user has not set, and let this process log no secret from now on."""
    mask_logging()
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_HOME", str(Path(PREFECT_HOME).resolve()))
