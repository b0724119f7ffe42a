"""The model card: what a model is, what it was made from, and how well it does.

A card holds no clock reading and no machine's paths, so the same model has the same card.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ABOUT = """\
An Ovis2.5 vision-language model (SigLIP 2 NaViT, visual tokenizer, Qwen3), fine-tuned from the
base model below. Licence: Apache-2.0; the base model and the data keep theirs."""

LIMITS = """\
- The scores say how the model does on these benchmarks, under this protocol; about other tasks,
  other languages and other pictures they say nothing.
- An interval covers chance in the choice of items only, not chance in training.
- Answers can be wrong and still sound sure. The model has had no safety tuning of its own, and
  reproduces what its base model and its data hold."""

CITATION = """\
@article{lu2025ovis25,
  title   = {Ovis2.5 Technical Report},
  author  = {Shiyin Lu and others},
  journal = {arXiv:2508.11737},
  year    = {2025}
}"""


class Score(BaseModel):
    """How one model did on one benchmark, in percent and in counts of items."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    score: float = Field(ge=0, le=100, allow_inf_nan=False)
    interval_low: float = Field(ge=0, le=100, allow_inf_nan=False)
    interval_high: float = Field(ge=0, le=100, allow_inf_nan=False)
    forced_close: int = Field(ge=0)
    invalid: int = Field(ge=0)

    def __str__(self) -> str:
        """Return the score with its interval, as a table shows it."""
        return f"{self.score:.1f} ({self.interval_low:.1f} to {self.interval_high:.1f})"


class Benchmark(BaseModel):
    """The tuned model and its base on the same items.

    `fingerprint` names the items, media, metric and protocol: only equal ones compare.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    fingerprint: str = Field(min_length=1)
    metric: str
    num_items: int = Field(gt=0)
    tuned: Score
    base: Score


@dataclass(frozen=True)
class Facts:
    """What a card is written from.

    `lineage` and `training` are the contents of the model folder's lineage.json and of the
    train step's report; what they do not hold is said to be unknown.
    """

    model_name: str
    model_digest: str
    benchmarks: Mapping[str, Benchmark]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


def render_card(facts: Facts, verdict: str) -> str:
    """Write the card as Markdown.

    Args:
        facts: Where the model comes from and its scores.
        verdict: The gate's, as Markdown.
    """
    parts = [
        f"# {facts.model_name}",
        ABOUT,
        _origin(facts),
        "## Scores",
        _protocol(facts.protocol),
        _scores(facts.benchmarks),
        "## Gate",
        verdict,
        "## Use",
        _use(facts.model_name),
        "## Limits",
        LIMITS,
        "## Citation",
        f"```bibtex\n{CITATION}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _origin(facts: Facts) -> str:
    training = facts.training
    rows = {
        "model digest": f"`{facts.model_digest}`",
        "base model": facts.lineage.get("base_model"),
        "data digest": facts.lineage.get("data_digest"),
        "inputs digest": facts.lineage.get("inputs_digest"),
        "training samples": training.get("samples"),
        "held-out samples": training.get("holdout_samples"),
        "supervised tokens": training.get("supervised_tokens"),
        "optimizer steps": training.get("steps"),
        "epochs": training.get("epochs"),
        "parameters, trained of all": _trained(training),
        "held-out loss (nats per token)": training.get("holdout_loss"),
    }
    lines = [f"| {name} | {_known(value)} |" for name, value in rows.items()]
    return "\n".join(["| made from | |", "|---|---|", *lines])


def _known(value: Any) -> str:
    if value is None or value == "":
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _trained(training: Mapping[str, Any]) -> str | None:
    if not {"parameters", "trainable_parameters"} <= training.keys():
        return None
    return f"{training['trainable_parameters']:,} of {training['parameters']:,}"


def _protocol(protocol: Mapping[str, Any]) -> str:
    thinking = "enabled" if protocol.get("enable_thinking") else "off"
    budget = protocol.get("thinking_budget")
    limits = "no thinking budget" if budget is None else f"at most {budget} tokens of thinking"
    decoding = "sampling" if protocol.get("do_sample") else "greedy decoding"
    return (
        f"Thinking {thinking}, {limits}, at most {_known(protocol.get('max_new_tokens'))} new "
        f"tokens in all, {decoding}. Percent of items, with the 95 % Wilson interval."
    )


def _scores(benchmarks: Mapping[str, Benchmark]) -> str:
    header = [
        "| benchmark | metric | items | base | tuned | closed by force | invalid |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [
        f"| {name} | {one.metric} | {one.num_items} | {one.base} | {one.tuned} | "
        f"{one.tuned.forced_close} | {one.tuned.invalid} |"
        for name, one in benchmarks.items()
    ]
    return "\n".join(header + rows)


def _use(model_name: str) -> str:
    return (
        "```python\n"
        "import mlflow\n\n"
        'mlflow.set_tracking_uri("sqlite:///.mlflow/mlflow.db")  # or your server\n'
        f'model = mlflow.pyfunc.load_model("models:/{model_name}@champion")\n'
        'model.predict([{"question": "What is in this picture?", "image": "picture.png"}])\n'
        "```"
    )
