"""`ovis promote`, `approve`, `reject`, `rollback`, `promotions`: who is the champion, and why.

ovis promote 3
ovis promote 3 --force --reason "the floor was set too high"
ovis approve 3 --reason "read twenty answers"
ovis reject 3 --reason "it is rude"
ovis rollback --reason "answers are too long"
ovis promotions
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovis_model import promotion
from ovis_model.errors import PromotionError
from ovis_model.promotion_log import Entry
from ovis_model.registry import ALIASES
from tasks._announcements import announce_move
from tasks.artifacts import KEPT_MODELS
from tasks.params import Params

if TYPE_CHECKING:
    from tasks._registry import MlflowRegistry


def add_parsers(commands: Any) -> None:
    """Add the five commands to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "make a version the champion that passed the gate against the present one"
    one: argparse.ArgumentParser = commands.add_parser("promote", help=text, description=text)
    one.add_argument("version", type=int, help="its number in the registry")
    one.add_argument("--force", action="store_true", help="against the gate; needs a reason")
    _add_conditions(one)
    for name, text in (
        ("approve", "make a version the champion that passed the gate and waits for approval"),
        ("reject", "refuse approval; no alias moves, and the log keeps who and why"),
    ):
        word: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        word.add_argument("version", type=int, help="its number in the registry")
        word.add_argument("--reason", default="", help="needed; kept in the log")
    text = "make the previous champion the champion again"
    _add_conditions(commands.add_parser("rollback", help=text, description=text))
    text = "who moved which alias, when and why; checks that nobody changed the record"
    log: argparse.ArgumentParser = commands.add_parser("promotions", help=text, description=text)
    log.add_argument("--restart", action="store_true", help="set a damaged log aside")
    log.add_argument("--reason", default="", help="why; kept in the new log")


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", default="", help="kept in the log")
    parser.add_argument(
        "--expect",
        type=int,
        metavar="VERSION",
        help="do nothing unless this is the champion now; 0 means none",
    )


def promote(options: argparse.Namespace) -> None:
    """Make a version the champion.

    Raises:
        ConfigError: If it is forced without a reason, or params.yaml or the store cannot be used.
        PromotionError: If it may not become champion.
    """
    registry, files = open_registry()
    done = promotion.promote(
        registry,
        options.version,
        files=files,
        reason=options.reason,
        force=options.force,
        expected=options.expect,
    )
    _say(tell_promotion(options.version, done))
    announce_move(files.name, done)


def approve(options: argparse.Namespace) -> None:
    """Make a version the champion that waits for approval.

    Raises:
        ConfigError: Without a reason, or if params.yaml or the store cannot be used.
        PromotionError: If it may not become champion.
    """
    registry, files = open_registry()
    done = promotion.approve(registry, options.version, files=files, reason=options.reason)
    _say(tell_promotion(options.version, done))
    announce_move(files.name, done)


def reject(options: argparse.Namespace) -> None:
    """Refuse approval to a version that waits for it.

    Raises:
        ConfigError: Without a reason, or if params.yaml or the store cannot be used.
        PromotionError: If it does not wait.
    """
    registry, files = open_registry()
    done = promotion.reject(registry, options.version, reason=options.reason)
    _say(tell(done))
    announce_move(files.name, done)


def tell_promotion(version: int, done: Entry | None) -> list[str]:
    """Say in lines what a promotion did."""
    return [f"version {version} is the champion already"] if done is None else [*tell(done)]


def rollback(options: argparse.Namespace) -> None:
    """Make the previous champion the champion again.

    Raises:
        ConfigError: If params.yaml or the store cannot be used.
        PromotionError: If there is nothing to go back to.
    """
    registry, files = open_registry()
    done = promotion.rollback(
        registry, files=files, reason=options.reason, expected=options.expect
    )
    _say(tell(done))
    announce_move(files.name, done)


def promotions(options: argparse.Namespace) -> None:
    """Print and verify the log, and compare it with where the aliases are.

    Raises:
        ConfigError: If params.yaml or the store cannot be used, or a new log has no reason.
        PromotionError: If the log was changed, or an alias was moved past it.
    """
    registry, _ = open_registry()
    if options.restart:
        _say(tell(promotion.restart(registry, options.reason)))
        return
    with registry.lock():
        entries = promotion.recover(registry)
        held = {alias: registry.version_at(alias) for alias in ALIASES}
        strays = promotion.moved_elsewhere(registry, entries)
    for entry in entries:
        if entry.event != "intent":  # the line that ends it says the same and more
            _say(tell(entry))
    _say([f"{len(entries)} lines in {registry.promotions.path}, none changed"])
    _say([", ".join(f"{alias} {version or 'nowhere'}" for alias, version in held.items())])
    if strays:
        raise PromotionError(
            f"an alias was moved past this log: {'; '.join(strays)}. If that is right, the next "
            "`ovis promote` or `ovis rollback` starts from where it is"
        )


def open_registry() -> tuple["MlflowRegistry", Path]:
    """Return the registry that params.yaml names, and where its versions keep their files."""
    name = Params.read().register_.model_name
    # Imported here: mlflow takes seconds, which `ovis status` need not wait for.
    from tasks._registry import MlflowRegistry  # noqa: PLC0415

    return MlflowRegistry(name), KEPT_MODELS / name


def tell(entry: Entry) -> Iterator[str]:
    """Say in lines what a line of the log says."""
    how = entry.action if entry.event == "done" else f"{entry.action} ({entry.event})"
    moves = ", ".join(map(str, entry.moves)) or "no alias moved"
    forced = " by force" if entry.forced else ""
    yield f"{entry.time}  {entry.who}  {how}{forced}: {moves}"
    verdict = f" (verdict {entry.verdict[:12]})" if entry.verdict else ""
    yield f"    {entry.reason}{verdict}"


def _say(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
