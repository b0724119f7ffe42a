import pytest
import torch

from ovis_model.data.loss_groups import group_tokens, is_thinking, learned_tokens
from ovis_model.tokens import TokenIds

OPEN, CLOSE, END, X = 8, 9, 2, -100
IDS = TokenIds(
    im_start=1, im_end=END, pad=0, think_open=OPEN, think_close=CLOSE, closing_sentence=()
)


@pytest.mark.parametrize(
    ("learned", "thinking"),
    [
        pytest.param([5, END], [0, 0], id="an answer without a thought"),
        pytest.param([OPEN, 5, CLOSE, 6, END], [1, 1, 1, 0, 0], id="a thought"),
        pytest.param([OPEN, CLOSE, 6, OPEN, 5, CLOSE, 7], [1, 1, 0, 1, 1, 1, 0], id="two turns"),
        pytest.param([OPEN, 5, 5], [1, 1, 1], id="cut within a thought"),
        pytest.param([], [], id="nothing learned"),
    ],
)
def test_thinking_is_what_stands_between_its_tags_and_the_tags(learned, thinking):
    assert is_thinking(torch.tensor(learned), IDS).tolist() == [bool(one) for one in thinking]


def test_nothing_predicts_the_first_position():
    assert learned_tokens(torch.tensor([7, X, 5, X, 6])).tolist() == [5, 6]


def test_every_sample_has_two_groups():
    labels = [torch.tensor([X, OPEN, 5, CLOSE, 6]), torch.tensor([X, 7])]
    thinking = [is_thinking(learned_tokens(labels[0]), IDS), None]
    groups = group_tokens(labels, ["ocr", None], thinking)
    assert groups.groups.tolist() == [0, 0, 0, 1, 3]
    assert groups.sources == ("ocr", None)
