"""Moves the aliases: compared first, written down before, finished after a crash.

Every move goes the same way, under the registry's lock:

    intent line   ->   aliases   ->   done line

A process that dies on the way leaves an intent without an end; the next one that asks for
anything finishes it first (`recover`).  The gate is not asked again here: its verdict stands in
the version's tags, whoever computed it and how.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from ovis_model.errors import CheckpointError, ConfigError, PromotionError
from ovis_model.model_folder import verify_model_folder
from ovis_model.promotion_log import (
    ABANDONED,
    DONE,
    INTENT,
    Action,
    Change,
    Entry,
    Event,
    Move,
)
from ovis_model.registry import (
    APPROVAL,
    APPROVED,
    CHAMPION,
    FORCED,
    JUDGED_AGAINST,
    MODEL_DIGEST,
    NO_CHAMPION,
    NOT_ASKED,
    OBJECTIONS,
    PASSED,
    PENDING,
    PREVIOUS,
    REJECTED,
    VERDICT,
    VERDICT_KEY,
    WAITING,
    Registry,
)

logger = logging.getLogger(__name__)


def promote(  # noqa: PLR0913 - the conditions under which a champion is replaced
    registry: Registry,
    version: int,
    *,
    files: Path,
    reason: str = "",
    force: bool = False,
    expected: int | None = None,
) -> Entry | None:
    """Make a version the champion; the champion so far becomes `previous`.

    Args:
        registry: The versions of one model.
        version: Has passed the gate in a comparison with the present champion, unless forced.
        files: Folder with the files of versions, each under its digest.
        reason: Why; kept in the log, and as a tag if forced.
        force: Whether to pass over the gate.
        expected: The champion that the caller saw, `NO_CHAMPION` if there was none: if another
            one holds the alias now, nothing is done.  None does not compare.

    Returns:
        The line of the log that says it is done; None if the version was champion already.

    Raises:
        ConfigError: If it is forced without a reason.
        PromotionError: If the version may not become champion, or is not there, or the log was
            changed.
    """
    if force and not reason.strip():
        raise ConfigError(f"--force needs a reason, which is kept: {_how_to_force(version)}")
    reason = reason or "the gate let it pass"
    return _make_champion(registry, version, "promote", files, reason, force, expected)


def approve(registry: Registry, version: int, *, files: Path, reason: str) -> Entry | None:
    """Make a version the champion on the word of a person, after the gate let it pass.

    Args:
        registry: The versions of one model.
        version: Has passed the gate in a comparison with the present champion.  Whether it
            still waits, or was rejected before, makes no difference: people may think again.
        files: Folder with the files of versions, each under its digest.
        reason: Who says so and why; kept in the log.

    Returns:
        The line of the log that says it is done; None if the version was champion already.

    Raises:
        ConfigError: Without a reason.
        PromotionError: If the version may not become champion, or is not there, or the log was
            changed.
    """
    _need_reason("approve", version, reason)
    return _make_champion(registry, version, "approve", files, reason)


def reject(registry: Registry, version: int, *, reason: str) -> Entry:
    """Write down that a version that waits for approval does not get it; no alias moves.

    Args:
        registry: The versions of one model.
        version: Waits for approval.
        reason: Who says so and why, or that nobody answered in time; kept in the log.

    Returns:
        The line of the log.

    Raises:
        ConfigError: Without a reason.
        PromotionError: If the version does not wait, or is not there, or the log was changed.
    """
    _need_reason("reject", version, reason)
    with registry.lock():
        recover(registry)
        tags = registry.tags_of(version)
        if tags.get(APPROVAL) != WAITING:
            raise PromotionError(
                f"version {version} does not wait for approval "
                f"({APPROVAL}: {tags.get(APPROVAL, 'not set')}); `ovis rollback` takes a champion "
                "back"
            )
        text = f"version {version}: {reason}"
        entry = _write(registry, DONE, Change("reject", (), tags.get(VERDICT_KEY), text))
        registry.set_tags(version, {APPROVAL: REJECTED})
        return entry


def _need_reason(command: str, version: int, reason: str) -> None:
    if not reason.strip():
        raise ConfigError(
            f"this needs a reason, which is kept: `ovis {command} {version} --reason TEXT`"
        )


def _make_champion(  # noqa: PLR0913, PLR0917 - the conditions, and what to write down
    registry: Registry,
    version: int,
    action: Action,
    files: Path,
    reason: str,
    force: bool = False,
    expected: int | None = None,
) -> Entry | None:
    with registry.lock():
        recover(registry)
        tags = registry.tags_of(version)
        champion = registry.version_at(CHAMPION)
        if champion == version:
            return None
        _compare(champion, expected)
        if not force:
            _ask_the_verdict(tags, version, champion)
        if action == "promote" and not force:
            _ask_the_people(tags, version)
        _check_files(registry, files, tags, version)
        wanted = Change(
            action,
            takeover(registry, version),
            verdict=tags.get(VERDICT_KEY),
            reason=reason,
            forced=force,
        )
        return change(registry, wanted)


def rollback(
    registry: Registry, *, files: Path, reason: str = "", expected: int | None = None
) -> Entry:
    """Make `previous` the champion again; nothing is `previous` then, so it goes back once.

    Going back further would be a guess: name the version instead, with `promote`.

    Args:
        registry: The versions of one model.
        files: Folder with the files of versions, each under its digest.
        reason: Why; kept in the log.
        expected: The champion that the caller saw; None does not compare.

    Returns:
        The line of the log that says it is done.

    Raises:
        PromotionError: If there is nothing to go back to, or its files are not there, or the
            log was changed.
    """
    with registry.lock():
        recover(registry)
        champion, previous = registry.version_at(CHAMPION), registry.version_at(PREVIOUS)
        _compare(champion, expected)
        if previous is None:
            raise PromotionError(
                f"no version is `{PREVIOUS}`, so there is nothing to go back to (a rollback goes "
                "back once). `ovis promotions` lists what was champion; choose one: `ovis promote "
                "VERSION`"
            )
        tags = registry.tags_of(previous)
        _check_files(registry, files, tags, previous)
        moves = [Move.of(CHAMPION, champion, previous), Move.of(PREVIOUS, previous, None)]
        done = change(
            registry,
            Change(
                "rollback",
                moves,
                verdict=tags.get(VERDICT_KEY),
                reason=reason or "no reason given",
            ),
        )
        assert done is not None, "champion and previous are two versions"
        return done


def takeover(registry: Registry, version: int) -> list[Move]:
    """List the moves that make a version champion: none, if it is."""
    champion, previous = registry.version_at(CHAMPION), registry.version_at(PREVIOUS)
    if champion == version:
        return []
    # The files of the old champion must not be without an alias for a moment.
    kept = [] if champion is None else [Move.of(PREVIOUS, previous, champion)]
    return [*kept, Move.of(CHAMPION, champion, version)]


def change(registry: Registry, wanted: Change) -> Entry | None:
    """Write down what is wanted, do it, write down that it is done; the caller has the lock.

    Returns:
        The last line, or None if no alias has to move.
    """
    moves = [move for move in wanted.moves if move.before != move.after]
    if not moves:
        return None
    intent = _write(registry, INTENT, wanted)
    return _finish(registry, intent)


def recover(registry: Registry) -> list[Entry]:
    """Finish what a process that died has begun, and return the log; the caller has the lock.

    Raises:
        PromotionError: If the log is not what was written.
    """
    log = registry.promotions
    head = registry.fetch_log()
    entries = log.read()
    log.check_head(entries, head)
    if not entries:
        return entries
    if head != entries[-1].sha256:
        registry.publish_log(entries[-1].sha256)
    if entries[-1].event == INTENT:
        logger.warning("finishing change %d, which was interrupted", entries[-1].number)
        entries.append(_finish(registry, entries[-1]))
    return entries


def restart(registry: Registry, reason: str) -> Entry:
    """Set a damaged log aside and begin a new one, whose first line says so.

    Raises:
        ConfigError: Without a reason.
    """
    if not reason.strip():
        raise ConfigError(
            "a new log needs a reason, which is its first line: `ovis promotions --restart "
            "--reason TEXT`"
        )
    with registry.lock():
        aside = registry.promotions.set_aside()
        return _write(
            registry, DONE, Change("restart", (), None, f"{reason} (set aside: {aside})")
        )


def was_taken_down(entries: Sequence[Entry], version: int) -> bool:
    """Tell whether a person replaced this champion, and nobody made it champion since."""
    found = False
    for entry in entries:
        for move in entry.moves if entry.event == DONE else ():
            if move.alias == CHAMPION and version in (move.before, move.after):
                found = move.before == version and entry.action in ("promote", "rollback")
    return found


def moved_elsewhere(registry: Registry, entries: Sequence[Entry]) -> list[str]:
    """Say which aliases are not where the log left them: somebody moved them past it."""
    places = {
        move.alias: move.after for entry in entries if entry.event == DONE for move in entry.moves
    }
    return [
        f"{alias} is at {held or 'nowhere'}, but the log left it at {left or 'nowhere'}"
        for alias, left in places.items()
        if (held := registry.version_at(alias)) != left
    ]


def _finish(registry: Registry, intent: Entry) -> Entry:
    """Make the moves of an intent that are not made yet, and close it."""
    held = {move.alias: registry.version_at(move.alias) for move in intent.moves}
    strays = [move for move in intent.moves if held[move.alias] not in (move.before, move.after)]
    if strays:
        # Somebody moved an alias by hand meanwhile, and knew more than we do.
        logger.warning("change %d is abandoned: %s", intent.number, ", ".join(map(str, strays)))
        return _write(registry, ABANDONED, _wanted(intent), of=intent.number)
    for move in intent.moves:
        if held[move.alias] != move.after:
            registry.move_alias(move.alias, move.after)
    noted = {FORCED: intent.reason} if intent.forced else {}
    noted |= {APPROVAL: APPROVED} if intent.action == "approve" else {}
    for move in intent.moves:
        if move.alias == CHAMPION and move.after is not None:
            # Nobody is to be asked any more about a version that was forced.
            waits = registry.tags_of(move.after).get(APPROVAL) == WAITING
            answered = {APPROVAL: NOT_ASKED} if waits and intent.forced else {}
            if told := answered | noted:
                registry.set_tags(move.after, told)
    return _write(registry, DONE, _wanted(intent), of=intent.number)


def _wanted(intent: Entry) -> Change:
    return Change(intent.action, intent.moves, intent.verdict, intent.reason, forced=intent.forced)


def _write(registry: Registry, event: Event, wanted: Change, *, of: int | None = None) -> Entry:
    entry = registry.promotions.append(event, wanted, of=of)
    registry.publish_log(entry.sha256)
    return entry


def _compare(champion: int | None, expected: int | None) -> None:
    if expected is not None and (champion or NO_CHAMPION) != expected:
        raise PromotionError(
            f"the {CHAMPION} is {_name(champion)}, not {_name(expected)} as expected: somebody "
            "else moved it. `ovis promotions` says who and why; then decide again"
        )


def _name(version: int | None) -> str:
    return f"version {version}" if version else "no version"


def _how_to_force(version: int) -> str:
    return f"`ovis promote {version} --force --reason TEXT`"


def _ask_the_verdict(tags: dict[str, str], version: int, champion: int | None) -> None:
    """Refuse a version without a passing verdict in a comparison with the present champion."""
    against = tags.get(JUDGED_AGAINST)
    if against is None or tags.get(VERDICT_KEY, PENDING).startswith(PENDING):
        problem = (
            "has no verdict of the gate; `make register` judges the model in the working tree"
        )
    elif tags.get(VERDICT) != PASSED:
        problem = f"was refused by the gate: {tags.get(OBJECTIONS)}"
    elif int(against) not in (champion or NO_CHAMPION, version):
        problem = (
            f"passed the gate in a comparison with {_name(int(against))}, but the {CHAMPION} is "
            f"{_name(champion)}: they were never compared"
        )
    else:
        return
    raise PromotionError(
        f"version {version} {problem}. To promote it all the same: {_how_to_force(version)}"
    )


def _ask_the_people(tags: dict[str, str], version: int) -> None:
    """Refuse a version on which a person has the last word, and has not said yes."""
    said = tags.get(APPROVAL)
    if said in (WAITING, REJECTED):
        raise PromotionError(
            f"version {version} {'waits for approval' if said == WAITING else 'was rejected'}: "
            f"`ovis approve {version} --reason TEXT` makes it the {CHAMPION}; `ovis promotions` "
            "says what was said so far"
        )


def _check_files(registry: Registry, files: Path, tags: dict[str, str], version: int) -> None:
    """Refuse a version that could not be loaded."""
    try:
        if registry.check_upload(version):
            return
    except PromotionError as error:
        raise PromotionError(
            f"version {version} cannot be the {CHAMPION}: {error}. Delete the version in MLflow; "
            "where its model is, `make register` uploads it again"
        ) from error
    digest = tags.get(MODEL_DIGEST, "")
    folder = files / digest
    if not digest or not folder.is_dir():
        raise PromotionError(
            f"version {version} has no files in {folder}; only those with an alias keep theirs. "
            "Check out the commit it was trained from, then `dvc checkout models/finetuned` and "
            "`make register`"
        )
    try:
        found = verify_model_folder(folder)
    except CheckpointError as error:
        raise PromotionError(f"version {version} cannot be the {CHAMPION}: {error}") from error
    if found != digest:
        raise PromotionError(
            f"version {version} cannot be the {CHAMPION}: {folder} holds another model "
            f"({found[:12]}...)"
        )
