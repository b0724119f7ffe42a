"""Where everything lives, relative to the repository root: the only place that says so."""

from pathlib import Path

VALIDATED = Path("data/validated")
EXTRACTED = Path("data/extracted")
MODEL = Path("models/finetuned")
#: Checkpoints for resuming: outside every DVC out, because DVC deletes outs before a run.
RESUME = Path("models/.resume")
#: Files of registered versions that have an alias, outside every DVC out for the same reason.
KEPT_MODELS = Path("models/.registered")

REPORTS = Path("reports")
VALIDATE_REPORT = REPORTS / "validate.json"
DATA_DOCS = REPORTS / "data_docs"
EXTRACT_REPORT = REPORTS / "extract.json"
TRAIN_REPORT = REPORTS / "train.json"
TRAIN_LOSS = REPORTS / "train_loss.csv"
EVALUATE_REPORT = REPORTS / "evaluate.json"
EVALUATE_HTML = REPORTS / "evaluate.html"
PREDICTIONS = REPORTS / "predictions"
REGISTER_REPORT = REPORTS / "register.json"
MODEL_CARD = REPORTS / "model_card.md"

MLFLOW_HOME = Path(".mlflow")
PREFECT_HOME = Path(".prefect")
DEEPSPEED_CONFIGS = Path("config/deepspeed")
PARAMS = Path("params.yaml")
