"""Run races: a process per trainer, one epoch at a time, in the order A B, B A, A B, ...

Only one process works at a time.  The first epoch is the warm-up and is not timed; whether a
trainer computes what it should is told by the losses of all epochs, before its time counts.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.measure import Quartiles, Times, order_of_round, paired_ratio
from benchmarks.suite import Agreement
from benchmarks.training.expected import Expected, expect
from benchmarks.training.trainers import Epoch, train
from benchmarks.training.variants import Race, Variant
from benchmarks.training.world import World

#: Lines of a trainer's output that are shown when it fails.
SHOWN_LINES = 15


@dataclass(frozen=True)
class Result:
    """What came of one variant.

    Attributes:
        race: Its name.
        world_sha256: Digest of weights and samples.
        variant: Who.
        epochs: All of them; the first was the warm-up.
        agreement: With the losses it should find.
        expected: What was planned for it, and what an epoch is; its peak is None for a trainer
            that is not ours.
    """

    race: str
    world_sha256: str
    variant: Variant
    epochs: tuple[Epoch, ...]
    agreement: Agreement
    expected: Expected

    @property
    def times(self) -> Times:
        """Of the epochs that count."""
        timed = self.epochs[1:]
        return Times(1, [one.cpu_seconds for one in timed], [one.wall_seconds for one in timed])

    @property
    def model_seconds(self) -> float:
        """Median of the forward and backward passes of an epoch."""
        return Quartiles.of([one.model_seconds for one in self.epochs[1:]]).median

    @property
    def peak_bytes(self) -> int | None:
        """The highest resident set."""
        return self.epochs[-1].peak_bytes


def speed(base: Result, result: Result) -> Quartiles:
    """Return how many times less processor time an epoch took, round by round."""
    return paired_ratio(base.times, result.times)


def run_race(race: Race, world: World, *, rounds: int) -> list[Result]:
    """Let the trainers of a race take turns.

    Args:
        race: Who.
        world: What they train on.
        rounds: Epochs that are timed.

    Raises:
        RuntimeError: If a trainer fails, with the end of what it wrote.
    """
    rounds = race.rounds or rounds
    expected = {one.name: expect(one, world) for one in race.variants}
    runners: dict[str, _Runner] = {}
    try:
        for variant in race.variants:
            own = _complete(variant, expected[variant.name], epochs=rounds + 1)
            runners[variant.name] = _Runner(own, world)
        for number in range(rounds + 1):
            for name in order_of_round(list(runners), number):
                runners[name].take_turn()
    finally:
        for runner in runners.values():
            runner.stop()
    epochs = {name: tuple(runner.epochs) for name, runner in runners.items()}
    sha256 = world.sha256
    return [
        Result(race.name, sha256, one, epochs[one.name], judge(one, epochs), expected[one.name])
        for one in race.variants
    ]


def judge(variant: Variant, epochs: Mapping[str, Sequence[Epoch]]) -> Agreement:
    """Compare a variant's losses with those it should find."""
    tolerance = variant.tolerance
    like = variant.name if variant.like is None else variant.like
    pairs = list(zip(epochs[like], epochs[variant.name], strict=True))
    if variant.like_at_first:
        pairs = pairs[:1]
    errors = [abs(mine.loss - theirs.loss) / theirs.loss for theirs, mine in pairs]
    # Written so that a loss that is no number is no agreement.
    equal = all(error <= tolerance for error in errors)
    return Agreement(equal, f"error {max(errors):.0e} of {tolerance:.0e}")


def _complete(variant: Variant, expected: Expected, *, epochs: int) -> Variant:
    """Let an epoch be one step of the optimizer."""
    steps = {
        "num_train_epochs": epochs,
        "gradient_accumulation_steps": expected.micro_batches,
    }
    return replace(variant, settings={**variant.settings, **steps})


class _Runner:
    """A trainer in a process of its own."""

    def __init__(self, variant: Variant, world: World) -> None:
        self.name = variant.name
        self.epochs: list[Epoch] = []
        self._scratch = Path(tempfile.mkdtemp(prefix="ovis-bench-"))
        self._log = self._scratch / "output.txt"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_run, args=(variant, world, self._scratch, theirs, self._log)
        )
        self._process.start()
        theirs.close()
        self._receive()  # it is ready

    def take_turn(self) -> None:
        """Have it train an epoch."""
        self._connection.send(None)
        self.epochs.append(self._receive())

    def stop(self) -> None:
        """End it, whether it is done or not."""
        self._connection.close()
        self._process.join()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            end = "\n".join(lines[-SHOWN_LINES:])
            raise RuntimeError(f"the trainer {self.name!r} failed:\n{end}") from None


def _run(variant: Variant, world: World, scratch: Path, connection: Connection, log: Path) -> None:
    """Train in this process, which writes to a file: progress bars would hide the table."""
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    train(variant, world, scratch, connection)
