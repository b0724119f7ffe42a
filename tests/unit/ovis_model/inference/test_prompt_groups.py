"""Prompts share a beginning when it holds the same words and the same media, and all of them."""

import pytest
import torch
from PIL import Image

from ovis_model.inference.messages import question_message, system_message
from ovis_model.inference.prompt_groups import common_length, group_prompts


@pytest.fixture(scope="module")
def encode(ovis):
    def encode(text, *colours, system=None):
        images = [Image.new("RGB", (40, 50), colour) for colour in colours]
        messages = [] if system is None else [system_message(system)]
        messages.append(question_message(text, num_images=len(images)))
        return ovis.processor.encode_prompt(messages, images=images, enable_thinking=False)

    return encode


@pytest.mark.parametrize(
    ("sequences", "length"),
    [
        ([[1, 2, 3], [1, 2, 4]], 2),
        ([[1, 2], [1, 2, 3]], 1),
        ([[1, 2, 3]], 2),
        ([[1], [2]], 0),
        ([[5, 1], [6, 1]], 0),
    ],
)
def test_the_common_length_leaves_every_sequence_something(sequences, length):
    assert common_length(sequences) == length


def test_questions_on_one_image_share_everything_up_to_their_first_difference(encode):
    prompts = [encode("What is it?", "red"), encode("What for?", "red"), encode("Why?", "red")]
    [group] = group_prompts(prompts)
    assert group.prefix.pixel_values is not None
    assert [index for index, _ in group.rows] == [2, 1, 0]
    for index, rest in group.rows:
        assert rest.pixel_values is None
        assert rest.grid_thws is None
        whole = torch.cat([group.prefix.input_ids, rest.input_ids])
        assert torch.equal(whole, prompts[index].input_ids)
        assert not (rest.input_ids < 0).any()


def test_what_shares_nothing_stays_together_without_a_prefix(encode):
    prompts = [
        encode("Longer question?", "red"),
        encode("Why?", "blue"),
        encode("Why?"),
        encode("Why?", "red", system="Be brief."),
        encode("Why?", "red", "blue"),
        encode("<image>\nSame?\n<image>", "red", "blue"),
    ]
    [group] = group_prompts(prompts)
    assert group.prefix is None
    assert sorted(index for index, _ in group.rows) == list(range(6))
    lengths = [len(prompt.input_ids) for _, prompt in group.rows]
    assert lengths == sorted(lengths)


def test_groups_and_single_prompts_are_told_apart(encode):
    prompts = [encode("Why?", "red"), encode("Why?"), encode("How?", "red"), encode("Why?")]
    shared, others = group_prompts(prompts)
    assert sorted(index for index, _ in shared.rows) == [0, 2]
    assert (others.prefix, [index for index, _ in others.rows]) == (None, [1, 3])


def test_several_images_are_shared_if_all_of_them_are(encode):
    prompts = [encode("Same?", "red", "blue"), encode("Else?", "red", "blue")]
    [group] = group_prompts(prompts)
    assert len(group.prefix.grid_thws) == 2


def test_the_same_question_twice_leaves_each_its_last_id(encode):
    prompts = [encode("Why?", "red"), encode("Why?", "red")]
    [group] = group_prompts(prompts)
    assert [len(rest.input_ids) for _, rest in group.rows] == [1, 1]


def test_no_prompts_make_no_groups():
    assert group_prompts([]) == []
