import shutil

import pytest

from ovis_model.errors import ConfigError, PromotionError
from ovis_model.model_folder import verify_model_folder
from ovis_model.promotion import (
    Change,
    approve,
    change,
    moved_elsewhere,
    promote,
    recover,
    reject,
    restart,
    rollback,
)
from ovis_model.promotion_log import Move
from ovis_model.registry import (
    APPROVAL,
    APPROVED,
    FORCED,
    JUDGED_AGAINST,
    MODEL_DIGEST,
    NOT_ASKED,
    OBJECTIONS,
    VERDICT,
    VERDICT_KEY,
    WAITING,
)
from tests.support.registry import MemoryRegistry, write_model


@pytest.fixture
def files(tmp_path):
    return tmp_path / "kept"


@pytest.fixture
def registry(tmp_path, files):
    """Three versions: 1 is champion, 2 passed against it, 3 was refused."""
    registry = MemoryRegistry(tmp_path / "promotions.jsonl")
    for version, verdict, against in ((1, "passed", 0), (2, "passed", 1), (3, "refused", 1)):
        folder = write_model(tmp_path / "model", b"%d" % version)
        digest = verify_model_folder(folder)
        shutil.move(folder, files / digest)
        registry.add_version(files / digest, {MODEL_DIGEST: digest})
        tags = {VERDICT: verdict, OBJECTIONS: "too bad", JUDGED_AGAINST: str(against)}
        registry.set_tags(version, {**tags, VERDICT_KEY: f"key {version}"})
    promote(registry, 1, files=files)
    return registry


def moves(registry):
    return [
        [str(move) for move in entry.moves]
        for entry in registry.promotions.read()
        if entry.event == "done"
    ]


def test_a_version_that_passed_becomes_champion_and_the_old_one_previous(registry, files):
    done = promote(registry, 2, files=files, reason="reads receipts")
    assert registry.aliases == {"champion": 2, "previous": 1}
    assert (done.who, done.verdict, done.reason) == ("tester", "key 2", "reads receipts")
    assert moves(registry)[1] == ["previous nowhere -> 1", "champion 1 -> 2"]
    assert registry.head == done.sha256


def test_promoting_the_champion_again_writes_nothing(registry, files):
    before = registry.promotions.path.read_bytes()
    assert promote(registry, 1, files=files) is None
    assert registry.promotions.path.read_bytes() == before


def test_a_refused_version_is_not_promoted(registry, files):
    with pytest.raises(PromotionError, match=r"was refused by the gate: too bad.*--force"):
        promote(registry, 3, files=files)
    assert registry.aliases == {"champion": 1}


@pytest.mark.parametrize("key", [None, "pending:key"], ids=["never judged", "interrupted"])
def test_a_version_without_a_settled_verdict_is_not_promoted(registry, files, key):
    del registry.versions[2][VERDICT_KEY]
    if key:
        registry.versions[2][VERDICT_KEY] = key
    with pytest.raises(PromotionError, match="has no verdict of the gate; `make register`"):
        promote(registry, 2, files=files)


def test_a_verdict_against_another_champion_does_not_count(registry, files):
    promote(registry, 3, files=files, force=True, reason="drill")
    with pytest.raises(
        PromotionError, match="with version 1, but the champion is version 3: they were never"
    ):
        promote(registry, 2, files=files)


def test_force_needs_a_reason(registry, files):
    with pytest.raises(ConfigError, match="--force needs a reason"):
        promote(registry, 3, files=files, force=True, reason=" ")


def test_the_reason_of_force_is_kept_in_the_log_and_as_a_tag(registry, files):
    done = promote(registry, 3, files=files, force=True, reason="customer needs it")
    assert (done.forced, done.reason) == (True, "customer needs it")
    assert registry.versions[3][FORCED] == "customer needs it"
    assert registry.aliases == {"champion": 3, "previous": 1}


@pytest.mark.parametrize("expected", [0, 2])
def test_a_champion_that_somebody_else_moved_is_not_replaced(registry, files, expected):
    with pytest.raises(PromotionError, match=r"is version 1, not (no version|version 2) as"):
        promote(registry, 2, files=files, expected=expected)
    with pytest.raises(PromotionError, match="somebody else moved it"):
        rollback(registry, files=files, expected=expected)
    assert registry.aliases == {"champion": 1}


def test_an_unknown_version_is_not_promoted(registry, files):
    with pytest.raises(PromotionError, match="no version 9"):
        promote(registry, 9, files=files)


def test_a_version_whose_files_are_gone_is_not_promoted_not_even_by_force(registry, files):
    shutil.rmtree(registry.places[2])
    with pytest.raises(PromotionError, match=r"version 2 has no files in .*`dvc checkout"):
        promote(registry, 2, files=files, force=True, reason="drill")


def test_a_version_whose_files_changed_is_not_promoted(registry, files):
    (registry.places[2] / "model.safetensors").write_bytes(b"other")
    with pytest.raises(PromotionError, match=r"version 2 cannot be the champion.*changed: model"):
        promote(registry, 2, files=files)


def test_a_folder_that_holds_another_model_is_not_promoted(registry, files):
    shutil.rmtree(registry.places[2])
    shutil.copytree(registry.places[3], registry.places[2])
    with pytest.raises(PromotionError, match="holds another model"):
        promote(registry, 2, files=files)


def test_a_rollback_brings_the_previous_champion_back_once(registry, files):
    promote(registry, 2, files=files)
    done = rollback(registry, files=files, reason="slower")
    assert registry.aliases == {"champion": 1}
    assert (done.action, done.reason, done.verdict) == ("rollback", "slower", "key 1")
    assert moves(registry)[-1] == ["champion 2 -> 1", "previous 1 -> nowhere"]
    with pytest.raises(PromotionError, match="nothing to go back to"):
        rollback(registry, files=files)


def test_what_was_rolled_back_can_be_promoted_again(registry, files):
    promote(registry, 2, files=files)
    rollback(registry, files=files)
    promote(registry, 2, files=files)
    assert registry.aliases == {"champion": 2, "previous": 1}


def test_a_rollback_to_a_damaged_model_is_refused(registry, files):
    promote(registry, 2, files=files)
    (registry.places[1] / "model.safetensors").write_bytes(b"other")
    with pytest.raises(PromotionError, match="version 1 cannot be the champion"):
        rollback(registry, files=files)
    assert registry.aliases == {"champion": 2, "previous": 1}


def test_nothing_is_moved_on_top_of_a_log_that_was_changed(registry, files):
    registry.promotions.path.write_bytes(b"")
    with pytest.raises(PromotionError, match="lines are missing at its end"):
        promote(registry, 2, files=files)
    assert registry.aliases == {"champion": 1}


def test_a_new_log_says_what_it_replaces(registry, files, tmp_path):
    registry.promotions.path.write_bytes(b"damaged\n")
    with pytest.raises(ConfigError, match="a new log needs a reason"):
        restart(registry, "")
    entry = restart(registry, "disk failed")
    assert entry.action == "restart"
    assert entry.reason.startswith("disk failed (set aside: promotions.damaged-")
    promote(registry, 2, files=files)
    assert registry.aliases == {"champion": 2, "previous": 1}
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_bytes() == b"damaged\n"


def test_an_interrupted_change_is_abandoned_where_somebody_moved_the_alias_meanwhile(
    registry, files, caplog
):
    wanted = Change("promote", [Move.of("champion", 1, 2)], None, "drill")
    registry.head = registry.promotions.append("intent", wanted).sha256
    registry.move_alias("champion", 3)
    entries = recover(registry)
    assert entries[-1].event == "abandoned"
    assert registry.aliases == {"champion": 3}
    assert "is abandoned: champion 1 -> 2" in caplog.text
    assert moved_elsewhere(registry, entries) == ["champion is at 3, but the log left it at 1"]


def test_a_move_to_where_an_alias_is_writes_nothing(registry):
    wanted = Change("register", [Move.of("champion", 1, 1)], None, "drill")
    before = registry.promotions.path.read_bytes()
    assert change(registry, wanted) is None
    assert registry.promotions.path.read_bytes() == before
    assert moved_elsewhere(registry, registry.promotions.read()) == []


# ---- approval -------------------------------------------------------------------------------


@pytest.fixture
def waiting(registry):
    registry.set_tags(2, {APPROVAL: WAITING})
    return registry


def test_a_version_that_waits_is_promoted_by_approval_and_by_nothing_less(waiting, files):
    with pytest.raises(PromotionError, match=r"version 2 waits for approval: `ovis approve 2 --r"):
        promote(waiting, 2, files=files, reason="in a hurry")
    with pytest.raises(ConfigError, match="needs a reason, which is kept: `ovis approve 2 --reas"):
        approve(waiting, 2, files=files, reason=" ")
    done = approve(waiting, 2, files=files, reason="read twenty answers")
    assert waiting.aliases == {"champion": 2, "previous": 1}
    assert (done.action, done.who, done.reason) == ("approve", "tester", "read twenty answers")
    assert waiting.tags_of(2)[APPROVAL] == APPROVED
    assert approve(waiting, 2, files=files, reason="again") is None


def test_approval_does_not_replace_the_gate(registry, files):
    with pytest.raises(PromotionError, match="version 3 was refused by the gate: too bad"):
        approve(registry, 3, files=files, reason="I like it")


def test_a_rejection_moves_nothing_is_kept_and_can_be_thought_over(waiting, files):
    entry = reject(waiting, 2, reason="it is rude")
    assert waiting.aliases == {"champion": 1}
    assert (entry.action, entry.moves, entry.reason) == ("reject", (), "version 2: it is rude")
    assert waiting.promotions.read()[-1] == entry
    with pytest.raises(PromotionError, match=r"version 2 was rejected: `ovis approve 2 --reason"):
        promote(waiting, 2, files=files)
    with pytest.raises(PromotionError, match=r"version 2 does not wait for approval \(ovis.appr"):
        reject(waiting, 2, reason="again")
    approve(waiting, 2, files=files, reason="it is not that rude")
    assert waiting.aliases["champion"] == 2


def test_force_passes_over_a_missing_approval_too(waiting, files):
    assert promote(waiting, 2, files=files, force=True, reason="all are on holiday").forced
    assert waiting.tags_of(2)[APPROVAL] == NOT_ASKED
    with pytest.raises(PromotionError, match="version 2 does not wait for approval"):
        reject(waiting, 2, reason="nobody answered in time")


def test_an_approval_that_died_before_its_alias_moved_is_finished(waiting, monkeypatch, files):
    with monkeypatch.context() as crash:
        crash.setattr(MemoryRegistry, "move_alias", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            approve(waiting, 2, files=files, reason="fine")
    recover(waiting)
    assert waiting.aliases["champion"] == 2
    assert waiting.tags_of(2)[APPROVAL] == APPROVED
