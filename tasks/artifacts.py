"""Where everything lives, relative to the repository root: the only place that says so."""

from pathlib import Path

VALIDATED = Path("data/validated")
EXTRACTED = Path("data/extracted")
#: What inspections of media found, for the next run: it outlives the DVC outs likewise.
MEDIA_MEMORY = Path("data/.inspected.jsonl")
#: What was decoded once: outside every DVC out, because DVC deletes outs before a run.
PICTURE_STORE = Path("data/.pictures")
MODEL = Path("models/finetuned")
#: Checkpoints for resuming: outside every DVC out, because DVC deletes outs before a run.
RESUME = Path("models/.resume")
#: Files of registered versions that have an alias, outside every DVC out for the same reason.
KEPT_MODELS = Path("models/.registered")

REPORTS = Path("reports")
VALIDATE_REPORT = REPORTS / "validate.json"
VALIDATE_LEDGER = REPORTS / "validate_ledger.jsonl"
DATA_DOCS = REPORTS / "data_docs"
DATA_CARD = REPORTS / "data_card.html"
EXTRACT_REPORT = REPORTS / "extract.json"
EXTRACT_LEDGER = REPORTS / "extract_ledger.jsonl"
TRAIN_REPORT = REPORTS / "train.json"
TRAIN_LOSS = REPORTS / "train_loss.csv"
TRAIN_XRAY = REPORTS / "train_xray.html"
EVALUATE_REPORT = REPORTS / "evaluate.json"
EVALUATE_HTML = REPORTS / "evaluate.html"
EVALUATE_SCORES = REPORTS / "evaluate_scores.csv"
PREDICTIONS = REPORTS / "predictions"
#: Answers of an unfinished evaluation: outside every DVC out for the same reason.
EVALUATE_RESUME = REPORTS / ".resume"
REGISTER_REPORT = REPORTS / "register.json"
GATE_REPORT = REPORTS / "gate.json"
MODEL_CARD = REPORTS / "model_card.md"
#: What people were told, one JSON object per line; holds times, so no stage reads it.
NOTIFICATIONS = REPORTS / "notifications.jsonl"
DRIFT_REPORT = REPORTS / "drift.json"
DRIFT_HTML = REPORTS / "drift.html"
REPRODUCE_REPORT = REPORTS / "reproduce.json"

#: What commands of `ovis` keep for themselves.
OVIS_HOME = Path(".ovis")
#: Working trees of commits from which versions are trained once more.
REPRODUCED = OVIS_HOME / "reproduced"
#: What runs, one file per process.
HEARTBEATS = OVIS_HOME / "heartbeats"

MLFLOW_HOME = Path(".mlflow")
PREFECT_HOME = Path(".prefect")
#: What is known of the raw data, so that they need not be read at each look.
DATA_VERSION = OVIS_HOME / "data_version.json"
#: What triggers have started, so that a restart neither loses nor doubles a run.
TRIGGERS = OVIS_HOME / "triggers.json"
#: What a trigger found of the raw data; reports/drift.json is what somebody asked for last.
DRIFT_OF_RAW = OVIS_HOME / "drift.json"
#: Who asks for approval now, one file per version and verdict.
APPROVALS = OVIS_HOME / "approvals"
#: Who has the working tree now.
TURN = OVIS_HOME / "turn.lock"
DEEPSPEED_CONFIGS = Path("config/deepspeed")
DVC_STAGES = Path("dvc.yaml")
PARAMS = Path("params.yaml")
#: On a run: what differed from its commit.
GIT_DIFF_PATCH = "git_diff.patch"
#: Environment variable of a flow's steps: what started the flow.
TRIGGER_VARIABLE = "OVIS_TRIGGER"
DVC_LOCK = Path("dvc.lock")
OPERATIONS = Path("operations.yaml")
LOCK_FILE = Path("requirements.lock")
