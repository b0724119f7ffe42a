"""The model card: what a model is, what it was made from, and how well it does.

A card holds no clock reading and no machine's paths, so the same model has the same card.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

ABOUT = """\
An Ovis2.5 vision-language model (SigLIP 2 NaViT, visual tokenizer, Qwen3), fine-tuned from the
base model below."""

INTENDED_USE = """\
Answers questions about one or several pictures, a video or text alone, of the kind that it was
trained and measured on here, where a person or a program checks what it says. Not made for
decisions about people, for telling who somebody is, or for anything that harms where an answer is
wrong."""

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

#: What stands between two lines of dashes at the beginning of a README.
_HEAD = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)


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

    `lineage`, `training` and `validation` are the contents of the model folder's lineage.json
    and of the reports of the train and the validate step; what they do not hold is said to be
    unknown.
    """

    model_name: str
    model_digest: str
    benchmarks: Mapping[str, Benchmark]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    base_licence: str | None = None


def render_card(facts: Facts, verdict: str) -> str:
    """Write the card as Markdown.

    Args:
        facts: Where the model comes from and its scores.
        verdict: The gate's, as Markdown.
    """
    parts = [
        f"# {facts.model_name}",
        ABOUT,
        "## Intended use",
        INTENDED_USE,
        "## Origin",
        _origin(facts),
        "## Data",
        _data(facts),
        "## Licences",
        _licences(facts),
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
        "base model": _base(facts.lineage.get("base_model")),
        "data digest": facts.lineage.get("data_digest"),
        "inputs digest": facts.lineage.get("inputs_digest"),
        "training samples": training.get("samples"),
        "held-out samples": training.get("holdout_samples"),
        "supervised tokens": training.get("supervised_tokens"),
        "optimizer steps": training.get("steps"),
        "epochs": training.get("epochs"),
        "parameters, trained of all": _trained(training),
        "held-out loss (nats per token)": training.get("holdout_loss"),
        "hardware": _hardware(training),
    }
    lines = [f"| {name} | {_known(value)} |" for name, value in rows.items()]
    return "\n".join(["| made from | |", "|---|---|", *lines])


def _base(place: str | None) -> str | None:
    """Name the base model; where it lies on one machine says nothing on another."""
    return Path(place).name if place and Path(place).is_absolute() else place


def _known(value: Any) -> str:
    if value is None or value == "":
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _trained(training: Mapping[str, Any]) -> str | None:
    if not {"parameters", "trainable_parameters"} <= training.keys():
        return None
    return f"{training['trainable_parameters']:,} of {training['parameters']:,}"


def _hardware(training: Mapping[str, Any]) -> str | None:
    if not {"device", "world_size", "dtype", "zero_stage"} <= training.keys():
        return None
    return (
        f"{training['world_size']} process(es) on {training['device']}, {training['dtype']}, "
        f"ZeRO stage {training['zero_stage']}"
    )


def _data(facts: Facts) -> str:
    """Account for the samples: which came in, which were used, and why others were not."""
    found = facts.validation
    if "identity" not in found:
        return "Unknown: no report of the validate step was there."
    lines = [f"{found['identity']}; {found['num_holdout']:,} of them held out."]
    reasons = {
        code: one["num_bad"]
        for code, one in found["expectations"].items()
        if one["severity"] == "quarantine" and one["num_bad"]
    }
    counts = [f"| {code} | quarantined | {count:,} |" for code, count in reasons.items()]
    counts += [f"| {why} | dropped | {count:,} |" for why, count in found["num_dropped"].items()]
    if counts:
        lines.append(
            "\n".join(["| reason | what became of them | samples |", "|---|---|---|", *counts])
        )
    return "\n\n".join(lines)


def _licences(facts: Facts) -> str:
    rows = {"this pipeline": "Apache-2.0", "base model": facts.base_licence}
    sources = facts.validation.get("sources") or {"": {}}
    for name, source in sources.items():
        rows[f"data {name}".strip()] = source.get("licence")
    lines = [f"| {what} | {licence or 'not stated'} |" for what, licence in rows.items()]
    note = "The model is under those of its base and its data together."
    return "\n".join(["| of | licence |", "|---|---|", *lines, "", note])


def stated_licence(folder: Path) -> str | None:
    """Return the licence in the head of a checkpoint's README, as model hubs have it, or None."""
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    head = _HEAD.match(readme.read_text(encoding="utf-8", errors="replace"))
    try:
        values = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        return None  # a README that is no better than that says nothing of a licence
    if not isinstance(values, dict):
        return None
    stated = values.get("license_name") or values.get("license")
    return None if stated is None else str(stated)


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
