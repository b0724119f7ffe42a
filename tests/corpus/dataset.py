"""One kind of bad input: the folder it is written to, and what should become of it.

<nn>_<slug>/expect.json     the verdict on every sample, see `Expectation`
<nn>_<slug>/raw/            annotations and media, as validate gets them
<nn>_<slug>/outside/        what no sample may reach
<nn>_<slug>/exam/           a benchmark
<nn>_<slug>/later/          files that change after validation
<nn>_<slug>/shards/         packed pictures
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

#: Refuse the dataset, quarantine the sample, sanitise it, warn, or apply a named policy.
Behaviour = Literal["D", "Q", "S", "W", "policy"]
Stage = Literal["validate", "extract", "shards"]
#: Key of a whole dataset that is good, beside bad ones.
GOOD = "good"


@dataclass(frozen=True)
class Expected:
    """What should become of one record.

    Attributes:
        key: Its id, or its place for one without a usable id; "#2" marks the second of an id.
        codes: Reasons why it is set aside; empty if it is used.
        policy: The policy that drops it, or None.
        warnings: Reasons that are counted, and no more.
        later: Reasons why extraction sets aside what validation let pass.
    """

    key: str
    codes: tuple[str, ...] = ()
    policy: str | None = None
    warnings: tuple[str, ...] = ()
    later: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        if self.policy is not None:
            return "dropped"
        return "quarantined" if self.codes else "ok"


@dataclass(frozen=True)
class Shown:
    """What a picture looks like once it is upright RGB.

    Attributes:
        file: Relative to raw/.
        size: Width and height in pixels.
        pixels: Colours at places, as (x, y, red, green, blue).
        tolerance: Levels by which a channel may differ.
    """

    file: str
    size: tuple[int, int]
    pixels: tuple[tuple[int, int, int, int, int], ...]
    tolerance: int = 2


@dataclass(frozen=True)
class Expectation:
    """What should become of a kind's folder.

    Attributes:
        behaviour: The class of the catalogue.
        note: Why, in a sentence.
        records: In the order of the annotation file; empty if only `refused` counts.
        refused: Annotation files, or folders of shards, that are refused as a whole, with a
            pattern of the message.
        stops: Codes so grave that validate stops after it has written its ledger.
        stage: Which step notices.
        config: Keys of `ValidateConfig` that this kind needs.
        max_tokens: What a sample may come to, counted with a tiny model; None counts nothing.
        annotations: The file that `records` come from.
        shown: What pictures must look like.
    """

    behaviour: Behaviour
    note: str
    records: tuple[Expected, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    stops: tuple[str, ...] = ()
    stage: Stage = "validate"
    config: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    annotations: str = "annotations.json"
    shown: tuple[Shown, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        """Every code that some record must be given, policies included."""
        found = {
            code
            for r in self.records
            for code in (*r.codes, *r.later, *r.warnings, r.policy or "")
        }
        return tuple(sorted(found - {""}))

    def count(self, verdict: str) -> int:
        """Count the records that end so."""
        return sum(record.verdict == verdict for record in self.records)

    def to_dict(self) -> dict[str, Any]:
        """Return it as expect.json holds it; what is empty is left out."""
        values = {
            "class": self.behaviour,
            "note": self.note,
            "stage": self.stage,
            "codes": list(self.codes),
            "ok": self.count("ok"),
            "quarantined": self.count("quarantined"),
            "dropped": self.count("dropped"),
            "samples": {r.key: list(r.codes) for r in self.records},
            "later": {r.key: list(r.later) for r in self.records if r.later},
            "warned": {r.key: list(r.warnings) for r in self.records if r.warnings},
            "policy": {r.key: r.policy for r in self.records if r.policy},
            "error": dict(self.refused),
            "stops": list(self.stops),
            "config": dict(self.config),
            "max_tokens": self.max_tokens,
            "shown": {s.file: {"size": s.size, "pixels": s.pixels} for s in self.shown},
        }
        always = {"class", "note", "stage", "codes", "ok", "quarantined", "dropped"}
        return {key: value for key, value in values.items() if value or key in always}


class Dataset:
    """A kind's folder while it is being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw = folder / "raw"
        self.raw.mkdir(parents=True)
        self.values: list[Any] = []
        self.expected: list[Expected] = []
        self.shown: list[Shown] = []

    def path(self, name: str, *, below: str = "raw") -> Path:
        """Return a path of this folder, its parent made."""
        path = self.folder / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def expect(
        self,
        key: str,
        *codes: str,
        policy: str | None = None,
        warn: Sequence[str] = (),
        later: Sequence[str] = (),
    ) -> None:
        """Note what should become of the next record."""
        taken = sum(e.key.partition("#")[0] == key for e in self.expected)
        name = f"{key}#{taken + 1}" if taken else key
        self.expected.append(Expected(name, codes, policy, tuple(warn), tuple(later)))

    def add(self, value: Any, *codes: str, **how: Any) -> None:
        """Add a record to the annotations, whatever it is."""
        self.values.append(value)
        given = value.get("id") if isinstance(value, dict) else None
        usable = isinstance(given, str | int) and not isinstance(given, bool) and given != ""
        self.expect(str(given) if usable else f"entry {len(self.values)}", *codes, **how)

    def talk(self, sample_id: Any, turns: Sequence[Any], *codes: str, **how: Any) -> None:
        """Add a text sample with these (role, value) turns."""
        self.add({"id": sample_id, "conversations": speak(turns)}, *codes, **how)

    def ask(self, sample_id: str, question: str, answer: str, *codes: str, **how: Any) -> None:
        """Add a text sample with one question."""
        self.talk(sample_id, [("human", question), ("gpt", answer)], *codes, **how)

    def good(self) -> None:
        """Add a sample that is fine, so that one sees that the run goes on."""
        self.ask(GOOD, "What is 1 + 1?", "2")

    def image(self, sample_id: str, file: Any, *codes: str, **how: Any) -> None:
        """Add a sample with one image."""
        self._medium("image", sample_id, file, *codes, **how)

    def video(self, sample_id: str, file: Any, *codes: str, **how: Any) -> None:
        """Add a sample with one video, in a file or as a list of frames."""
        self._medium("video", sample_id, file, *codes, **how)

    def _medium(self, kind: str, sample_id: str, file: Any, *codes: str, **how: Any) -> None:
        # A question of its own keeps samples that share a file from being the same content.
        turns = speak([("human", f"<{kind}>\nWhat shows {sample_id}?"), ("gpt", "That.")])
        self.add({"id": sample_id, kind: file, "conversations": turns}, *codes, **how)

    def shows(
        self, file: str, size: tuple[int, int], *pixels: tuple[int, int, int, int, int], **how: Any
    ) -> None:
        """Note what a picture must look like."""
        self.shown.append(Shown(file, size, pixels, **how))

    def write(self, behaviour: Behaviour, note: str, **more: Any) -> Expectation:
        """Write annotations.json, unless the kind wrote its own file, and the expectation."""
        if "annotations" not in more and self.values:
            text = json.dumps({"conversations": self.values})
            (self.raw / "annotations.json").write_text(text, encoding="utf-8")
        more = {"records": tuple(self.expected), "shown": tuple(self.shown), **more}
        expectation = Expectation(behaviour, note, **more)
        text = json.dumps(expectation.to_dict(), indent=2, ensure_ascii=True)
        (self.folder / "expect.json").write_text(text + "\n", encoding="utf-8")
        return expectation


@dataclass(frozen=True)
class Kind:
    """One numbered entry of the catalogue of bad inputs."""

    number: int
    slug: str
    write: Callable[[Dataset], Expectation]

    @property
    def name(self) -> str:
        """Its folder: number and slug."""
        return f"{self.number:02d}_{self.slug}"

    def build(self, root: Path) -> Expectation:
        """Write its folder below `root`, which must not hold it yet."""
        return self.write(Dataset(root / self.name))


def speak(turns: Sequence[Any]) -> list[dict[str, Any]]:
    """Return turns as the seed's file has them."""
    return [{"from": role, "value": value} for role, value in turns]
