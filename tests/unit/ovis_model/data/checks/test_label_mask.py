"""The label mask in text is the one that training uses."""

import subprocess
import sys

import pytest

from ovis_model.data.checks.label_mask import Piece, mask_by_turn, mask_of, tokens_of, visible
from ovis_model.data.schema import Fit, parse_sample
from ovis_model.errors import DataError
from ovis_model.processing.conversation import format_conversation
from ovis_model.tokens import EMPTY_THINK, IGNORE_ID
from tests.support.raw_data import sample, turns
from tests.support.tiny_model import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def parsed(*texts, **media):
    return parse_sample(sample("s", *texts, **media))


def of_kind(pieces, kind):
    return [piece.text for piece in pieces if piece.kind == kind]


def test_answers_and_their_ends_are_learned_and_everything_else_is_read(tokenizer):
    mask = mask_of(parsed("1 + 1?", "2", "And 1 more?", "3"), tokenizer)
    assert [(piece.kind, piece.text) for piece in mask] == [
        ("read_only", f"<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n{EMPTY_THINK}"),
        ("supervised", "2<|im_end|>"),
        (
            "read_only",
            f"\n<|im_start|>user\nAnd 1 more?<|im_end|>\n<|im_start|>assistant\n{EMPTY_THINK}",
        ),
        ("supervised", "3<|im_end|>"),
    ]


def test_a_thought_is_learned(tokenizer):
    mask = mask_of(parsed("?", "<think>\nhm\n</think>\n\n2"), tokenizer)
    assert of_kind(mask, "supervised") == ["<think>\nhm\n</think>\n\n2<|im_end|>"]


def test_an_ignored_answer_and_a_system_prompt_are_only_read(tokenizer):
    talk = [{"from": "system", "value": "Be brief."}, *turns("?", "no", "?", "yes")]
    talk[2]["from"] = "ignored_gpt"
    mask = mask_of(parse_sample({"id": "s", "conversations": talk}), tokenizer)
    assert of_kind(mask, "supervised") == ["yes<|im_end|>"]
    assert "Be brief." in mask[0].text
    assert "no<|im_end|>" in mask[0].text


def test_media_are_named_and_numbered_with_their_tokens(tokenizer):
    several = parsed("<image> and <image>?", "2", image=["a.png", "b.png"])
    mask = mask_of(several, tokenizer, visual_tokens=[66, 18])
    visual = [piece for piece in mask if piece.kind == "visual"]
    assert visual == [
        Piece("image 1 (66 tokens)", "visual", 66),
        Piece("image 2 (18 tokens)", "visual", 18),
    ]
    film = parsed("<video>?", "2", video="a.mp4")
    assert of_kind(mask_of(film, tokenizer), "visual") == ["video 1"]


def test_neighbouring_media_stay_apart(tokenizer):
    pair = parsed("<image><image>?", "2", image=["a.png", "b.png"])
    assert of_kind(mask_of(pair, tokenizer), "visual") == ["image 1", "image 2"]


def test_a_placeholder_in_an_answer_is_visual_and_not_learned(tokenizer):
    mask = mask_of(parsed("?", "see <image>!", image="a.png"), tokenizer)
    assert of_kind(mask, "supervised") == ["see ", "!<|im_end|>"]


def test_a_wrong_number_of_media_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"1 placeholder\(s\) for 2 media"):
        mask_of(parsed("<image>?", "2"), tokenizer, visual_tokens=[6, 6])


def test_a_conversation_that_cannot_be_encoded_is_an_error(tokenizer):
    with pytest.raises(DataError, match="images or one video"):
        mask_of(parsed("<image>", "a", "<video>", "b"), tokenizer)


@pytest.mark.parametrize(
    "text",
    ["plain", "안녕하세요 🙂 ¿qué?", "\N{REPLACEMENT CHARACTER} lone", "a\n\n\n b\t", "🙂", ""],
)
def test_no_token_and_no_letter_is_lost(tokenizer, text):
    talk = parsed(f"<image>\n{text}?", f"{text}.", image="a.png")
    ids, labels = format_conversation(talk.conversations, tokenizer)
    for pieces in (mask_of(talk, tokenizer), tokens_of(talk, tokenizer)):
        assert sum(piece.num_tokens for piece in pieces) == len(ids)
        learned = sum(piece.num_tokens for piece in pieces if piece.kind == "supervised")
        assert learned == sum(label != IGNORE_ID for label in labels)
        shown = "".join("<image>" if p.kind == "visual" else p.text for p in pieces)
        assert shown == (
            f"<|im_start|>user\n<image>\n{text}?<|im_end|>\n"
            f"<|im_start|>assistant\n{EMPTY_THINK}{text}.<|im_end|>"
        )


def test_bytes_that_are_no_whole_character_stay_together(tokenizer):
    pieces = tokens_of(parsed("?", "한a"), tokenizer)
    learned = [piece for piece in pieces if piece.kind == "supervised"]
    assert learned == [
        Piece("한", "supervised", 3),
        Piece("a", "supervised", 1),
        Piece("<|im_end|>", "supervised", 1),
    ]


def test_what_lies_beyond_the_limit_of_a_sample_is_cut(tokenizer):
    talk = parsed("?", "abcdef")
    whole = mask_of(talk, tokenizer)
    length = sum(piece.num_tokens for piece in whole)
    cut = mask_of(talk.model_copy(update={"fit": Fit(max_tokens=length - 3)}), tokenizer)
    assert [(piece.kind, piece.text) for piece in cut[1:]] == [
        ("supervised", "abcd"),
        ("cut", "ef<|im_end|>"),
    ]
    assert mask_of(talk.model_copy(update={"fit": Fit(max_tokens=length)}), tokenizer) == whole


def test_a_medium_is_never_cut_in_half(tokenizer):
    talk = parsed("ab<image>cd", "e", image="a.png")
    start = len(format_conversation(talk.conversations[:1], tokenizer)[0]) - 5
    fit = Fit(max_tokens=start + 5)
    mask = mask_of(talk.model_copy(update={"fit": fit}), tokenizer, visual_tokens=[66])
    assert [piece.kind for piece in mask] == ["read_only", "cut"]
    assert mask[1].text.startswith("image 1 (66 tokens)cd")


def test_without_a_tokenizer_the_turns_tell_the_same(tokenizer):
    system = {"from": "system", "value": "Be brief."}
    talk = [system, *turns("<image>\n?", "<think>\nhm\n</think>\n\n2", "And?", "3", "Why?")]
    found = parse_sample({"id": "s", "image": "a.png", "conversations": talk})
    exact = [(piece.kind, piece.text) for piece in mask_of(found, tokenizer)]
    assert [(piece.kind, piece.text) for piece in mask_by_turn(found)] == exact
    assert {piece.num_tokens for piece in mask_by_turn(found)} == {None}


def test_the_turns_tell_the_same_of_a_video_next_to_a_word_that_looks_like_an_image(tokenizer):
    found = parsed("<video> is no <image>", "right", video="a.mp4")
    exact = [(piece.kind, piece.text) for piece in mask_of(found, tokenizer)]
    assert [(piece.kind, piece.text) for piece in mask_by_turn(found)] == exact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", "⟨U+001B⟩]0;owned⟨U+0007⟩"),
        ("a\u202eb\u200b", "a⟨U+202E⟩b⟨U+200B⟩"),
        ("half \ud83d", "half ⟨U+D83D⟩"),
        ("안녕 🙂\n\t日本語", "안녕 🙂\n\t日本語"),
        ("family: 👨\u200d👩", "family: 👨\u200d👩"),
    ],
)
def test_hidden_characters_are_shown_and_the_others_left(text, shown):
    assert visible(text) == shown


def test_the_mask_needs_no_torch():
    code = "import sys, ovis_model.data.checks.label_mask; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
