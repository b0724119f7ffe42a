"""A model in this process: the same answers in any batch, shared pictures read once."""

from dataclasses import replace

import pytest

from ovis_model.errors import ConfigError
from ovis_model.evaluation.running import ask
from ovis_model.evaluation.shards import Shard
from ovis_model.inference.engine import BatchLimit
from ovis_model.inference.generation import GenerationSettings
from ovis_model.model_folder import digest_of_folder
from tests.support.exams import SETTINGS, exam, question

PIXELS = (32 * 32, 64 * 64)
TEXTS = ["Which digit is this?", "Why?", "Is it a seven? Say yes or no.", "What?", "Where is it?"]
#: Two pictures, one of them with three questions, and one question without a picture.
QUESTIONS = [
    question(number, colour=colour, text=text)
    for number, (colour, text) in enumerate(zip([50, 50, 200, 50, None], TEXTS, strict=True))
]
SAMPLED = replace(SETTINGS, do_sample=True, temperature=1.0, top_k=50, top_p=0.95)


def tiny_exam(settings=SETTINGS, **others):
    return replace(exam(QUESTIONS, settings=settings, **others), pixels=PIXELS)


def texts(run):
    return [row.raw_output for row in run.rows["digits"]]


@pytest.mark.parametrize("settings", [SETTINGS, SAMPLED], ids=["greedy", "sampled"])
def test_an_answer_does_not_depend_on_what_is_asked_beside_it(backend, tmp_path, settings):
    one = replace(backend, limit=BatchLimit(1))
    alone = ask([tiny_exam(settings)], one, working=tmp_path / "alone")
    together = ask([tiny_exam(settings)], backend, working=tmp_path / "together")
    assert texts(together) == texts(alone)
    assert max(row.batch_rows for row in together.rows["digits"]) > 1
    shares = [
        ask([tiny_exam(settings)], backend, working=tmp_path / "n", shard=Shard(rank, 2))
        for rank in range(2)
    ]
    assert texts(shares[1]) == texts(alone)


def test_seeds_differ_and_repeat_themselves(backend, tmp_path):
    sampled = tiny_exam(SAMPLED, seeds=(0, 1, 2))
    run = ask([sampled], backend, working=tmp_path / "a")
    by_seed = [texts(run)[seed::3] for seed in range(3)]
    assert by_seed[0] != by_seed[1] != by_seed[2]
    assert texts(ask([sampled], backend, working=tmp_path / "b")) == texts(run)


def test_a_picture_that_questions_share_is_read_once(backend, tmp_path):
    read = []

    def note(_, arguments, __):
        read.append(len(arguments[1]))

    hook = backend.engine.model.visual_tokenizer.vit.register_forward_hook(note)
    ask([tiny_exam()], backend, working=tmp_path)
    hook.remove()
    assert sum(read) == 2


def test_rows_say_what_was_shown_and_what_it_took(backend, tmp_path):
    rows = ask([tiny_exam()], backend, working=tmp_path).rows["digits"]
    first, text_only = rows[0], rows[4]
    assert (first.media[0].width, first.media[0].grid) == (32, (1, 2, 2))
    assert first.tokens.visual == 3  # one atom and its two indicators
    assert first.tokens.thinking <= SETTINGS.thinking_budget
    assert text_only.media == ()
    assert text_only.tokens.visual == 0
    for row in rows:
        assert row.latency_s >= row.ttft_s > 0
        assert row.model == backend.model


def test_media_that_cannot_be_opened_are_a_reason_not_an_end(backend, tmp_path):
    questions = [QUESTIONS[0], question(9, colour=7, broken=True)]
    run = ask([replace(tiny_exam(), questions=questions)], backend, working=tmp_path)
    good, bad = run.rows["digits"]
    assert (good.error, bad.status, bad.error) == ("", "error", "item 9: no picture")


def test_a_batch_keeps_within_its_tokens(backend, tmp_path):
    longest = max(
        row.tokens.prompt for row in ask([tiny_exam()], backend, working=tmp_path).rows["digits"]
    )
    two = 2 * (longest + SETTINGS.max_new_tokens)
    small = replace(backend, limit=BatchLimit(4, tokens=two))
    rows = ask([tiny_exam()], small, working=tmp_path / "small").rows["digits"]
    assert max(row.batch_rows for row in rows) == 2
    least = replace(backend, limit=BatchLimit(4, tokens=1))
    rows = ask([tiny_exam()], least, working=tmp_path / "least").rows["digits"]
    assert {row.batch_rows for row in rows} == {1}


def test_settings_without_room_for_an_answer_are_refused_before_anything_is_asked(
    backend, tmp_path
):
    settings = GenerationSettings(max_new_tokens=5, enable_thinking=True, thinking_budget=4)
    with pytest.raises(ConfigError, match=r"evaluate: thinking_budget .* leave no room"):
        ask([tiny_exam(settings)], backend, working=tmp_path)


def test_a_model_is_known_by_its_files(tiny, tmp_path, backend):
    assert backend.model == digest_of_folder(tiny)
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text("{}", encoding="utf-8")
    (other / "a").write_text("x", encoding="utf-8")
    before = digest_of_folder(other)
    (other / "manifest.json").write_text("{1}", encoding="utf-8")
    assert digest_of_folder(other) == before
    (other / "a").write_text("y", encoding="utf-8")
    assert digest_of_folder(other) != before
