"""What registering needs and a test can have at once: a registry in memory, a small model."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ovis_model.config import RegisterConfig
from ovis_model.errors import PromotionError
from ovis_model.evaluation.running import write_run
from ovis_model.model_folder import listed_digest
from ovis_model.promotion_log import PromotionLog
from ovis_model.registration import RegisterReport, register
from ovis_model.registry import MODEL_DIGEST
from ovis_model.reports import sha256_of_file
from tests.support.predictions import rows_right, run


class MemoryRegistry:
    """The `Registry` of ovis_model.registry, as long as the process lives; its log is a file."""

    def __init__(self, log: Path) -> None:
        self.promotions = PromotionLog(log, who="tester")
        self.head: str | None = None
        self.versions: dict[int, dict[str, str]] = {}
        self.places: dict[int, Path] = {}
        self.texts: dict[int, str] = {}
        self.aliases: dict[str, int] = {}

    @contextmanager
    def lock(self) -> Iterator[None]:
        yield

    def find_version(self, tag: str, value: str) -> int | None:
        found = [number for number, tags in self.versions.items() if tags.get(tag) == value]
        return min(found, default=None)

    def add_version(self, model: Path, tags: Mapping[str, str]) -> int:
        version = len(self.versions) + 1
        self.versions[version] = dict(tags)
        self.places[version] = model
        return version

    def check_upload(self, version: int) -> bool:
        return False

    def versions_with(self, tag: str) -> list[int]:
        return [number for number, tags in self.versions.items() if tag in tags]

    def tags_of(self, version: int) -> dict[str, str]:
        if version not in self.versions:
            raise PromotionError(f"there is no version {version}")
        return dict(self.versions[version])

    def set_tags(self, version: int, tags: Mapping[str, str]) -> None:
        self.versions[version].update(tags)

    def describe(self, version: int, text: str) -> None:
        self.texts[version] = text

    def version_at(self, alias: str) -> int | None:
        return self.aliases.get(alias)

    def move_alias(self, alias: str, version: int | None) -> None:
        if version is None:
            self.aliases.pop(alias, None)
        else:
            self.aliases[alias] = version

    def fetch_log(self) -> str | None:
        return self.head

    def publish_log(self, head: str) -> None:
        self.head = head


def write_model(folder: Path, weights: bytes = b"weights") -> Path:
    """Write a model folder as the train step leaves it, with weights that are only bytes."""
    # A training writes a new folder; it never writes into an old file.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    lineage = {"base_model": "base", "inputs_digest": "1" * 64, "data_digest": "2" * 64}
    (folder / "lineage.json").write_text(json.dumps(lineage), encoding="utf-8")
    return write_manifest(folder)


def write_manifest(folder: Path) -> Path:
    """List what is in a folder, as the train step does last."""
    manifest = folder / "manifest.json"
    manifest.unlink(missing_ok=True)
    files = {
        path.relative_to(folder).as_posix(): sha256_of_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest.write_text(json.dumps({"files": files, "steps": 3}), encoding="utf-8")
    return folder


def scores(
    tuned: float, *, base: float = 10.0, exam: str = "exam", **counts: int
) -> dict[str, Any]:
    """Return one benchmark as reports/evaluate.json has it."""

    def score(value: float) -> dict[str, Any]:
        interval = {"interval_low": max(value - 5, 0.0), "interval_high": min(value + 5, 100.0)}
        return {"score": value, **interval, "forced_close": 0, "invalid": 0}

    return {
        "fingerprint": exam,
        "metric": "exact",
        "num_items": 100,
        "tuned": {**score(tuned), **counts},
        "base": score(base),
    }


def write_evaluation(
    reports: Path,
    model: Path,
    *,
    champion: tuple[str, Mapping[str, float]] | None = None,
    exam: str = "exam",
    **percent: float,
) -> None:
    """Write evaluate.json and predictions of a model, as the evaluate step leaves them.

    Args:
        reports: Where.
        model: Its folder.
        champion: Digest and scores of the champion, if it was asked.
        exam: What fingerprints say.
        percent: Scores by benchmark; the base has 10.
    """
    protocol = {"enable_thinking": True, "thinking_budget": 24, "max_new_tokens": 72}
    benchmarks = {name: scores(score, exam=exam) for name, score in percent.items()}
    report = {"protocol": protocol, "benchmarks": benchmarks}
    reports.mkdir(exist_ok=True)
    (reports / "evaluate.json").write_text(json.dumps(report), encoding="utf-8")
    shutil.rmtree(reports / "predictions", ignore_errors=True)
    asked = {"tuned": (listed_digest(model), percent), "base": ("b", dict.fromkeys(percent, 10))}
    if champion is not None:
        asked["champion"] = champion
    for role, (digest, marks) in asked.items():
        rows = {name: rows_right(score) for name, score in marks.items()}
        write_run(run(digest, fingerprint=exam, **rows), reports / "predictions" / role)


class Steps:
    """The evaluate and the register step in a folder, with models that are only bytes."""

    def __init__(self, folder: Path, registry: MemoryRegistry) -> None:
        self.folder, self.registry = folder, registry
        self._answered: dict[str, Mapping[str, float]] = {}
        (folder / "train.json").write_text(json.dumps({"samples": 1200}), encoding="utf-8")

    def evaluate(self, weights: bytes = b"one", exam: str = "exam", **percent: float) -> None:
        """Ask a new model, its base and the champion that there is."""
        model = write_model(self.folder / "model", weights)
        digest = listed_digest(model)
        self._answered[digest] = percent
        champion = self.registry.version_at("champion")
        held = champion and self.registry.tags_of(champion).get(MODEL_DIGEST)
        asked = held in self._answered and held != digest
        rival = (held, self._answered[held]) if asked else None
        write_evaluation(self.folder, model, champion=rival, exam=exam, **percent)

    def register(self, config: RegisterConfig) -> RegisterReport:
        """Register what was asked last."""
        return register(
            config,
            model=self.folder / "model",
            evaluation=self.folder / "evaluate.json",
            predictions=self.folder / "predictions",
            training=self.folder / "train.json",
            kept_models=self.folder / "kept",
            card=self.folder / "card.md",
            judgement=self.folder / "gate.json",
            registry=self.registry,
        )
