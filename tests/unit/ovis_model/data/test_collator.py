import pytest
import torch

from ovis_model.data.collator import DataCollatorForMultimodalDataset, PackingCollator
from ovis_model.data.dataset import Example
from ovis_model.flops import BatchShape
from ovis_model.processing.processing_ovis2_5 import EncodedSample

PAD = 9


def example(name, length, *, patches=0):
    labels = torch.full((length,), -100)
    labels[-1] = 5
    pixels = torch.full((patches, 768), patches, dtype=torch.uint8) if patches else None
    grid = torch.tensor([[1, 2, patches // 2]]) if patches else None
    return Example(name, EncodedSample(torch.arange(1, length + 1), labels, pixels, grid))


def test_shorter_rows_are_padded_on_the_right():
    batch = DataCollatorForMultimodalDataset(pad_id=PAD)([example("a", 2), example("b", 4)])
    assert batch["input_ids"].tolist() == [[1, 2, PAD, PAD], [1, 2, 3, 4]]
    assert batch["attention_mask"].tolist() == [[True, True, False, False], [True] * 4]
    assert batch["labels"].tolist() == [[-100, 5, -100, -100], [-100, -100, -100, 5]]


def test_rows_of_equal_length_get_no_padding():
    batch = DataCollatorForMultimodalDataset(pad_id=PAD)([example("a", 3), example("b", 3)])
    assert batch["input_ids"].shape == (2, 3)


def test_media_are_joined_in_the_order_of_the_rows():
    rows = [example("a", 2, patches=4), example("b", 2), example("c", 2, patches=8)]
    batch = DataCollatorForMultimodalDataset(pad_id=PAD)(rows)
    assert batch["pixel_values"][:, 0].tolist() == [4] * 4 + [8] * 8
    assert batch["grid_thws"].tolist() == [[1, 2, 2], [1, 2, 4]]


def test_pixels_stay_bytes_and_a_single_examples_are_not_copied():
    row = example("a", 2, patches=4)
    batch = DataCollatorForMultimodalDataset(pad_id=PAD)([row])
    assert batch["pixel_values"].dtype == torch.uint8
    assert batch["pixel_values"] is row.encoded.pixel_values


def test_a_batch_of_text_carries_no_media_keys():
    batch = DataCollatorForMultimodalDataset(pad_id=PAD)([example("a", 2)])
    assert "pixel_values" not in batch
    assert "grid_thws" not in batch


def test_names_and_counts_travel_with_the_batch():
    batch = DataCollatorForMultimodalDataset(pad_id=PAD)([example("a", 2), example("b", 4)])
    assert batch["sample_ids"] == ["a", "b"]
    assert batch["num_tokens"] == 6
    assert batch["num_supervised_tokens"] == 2


def test_a_packed_row_has_its_samples_behind_each_other():
    row = [example("a", 2, patches=4), example("b", 3), example("c", 4, patches=8)]
    batch = PackingCollator()([row])
    assert batch["input_ids"].tolist() == [[1, 2, 1, 2, 3, 1, 2, 3, 4]]
    assert batch["labels"].tolist() == [[-100, 5, -100, -100, 5, -100, -100, -100, 5]]
    assert batch["sequence_lengths"] == [2, 3, 4]
    assert batch["pixel_values"][:, 0].tolist() == [4] * 4 + [8] * 8
    assert batch["grid_thws"].tolist() == [[1, 2, 2], [1, 2, 4]]
    assert batch["sample_ids"] == ["a", "b", "c"]
    assert (batch["num_tokens"], batch["num_supervised_tokens"]) == (9, 3)
    assert "attention_mask" not in batch


def test_a_packed_row_of_text_carries_no_media_keys():
    batch = PackingCollator()([[example("a", 2), example("b", 3)]])
    assert not {"pixel_values", "grid_thws"} & set(batch)


def test_the_first_position_of_a_packed_sample_is_learned_from_nothing():
    first = example("b", 1)
    batch = PackingCollator()([[example("a", 2), first]])
    assert batch["labels"].tolist() == [[-100, 5, -100]]
    assert batch["num_supervised_tokens"] == 1
    assert first.encoded.labels.tolist() == [5], "a cached example must stay as it is"


@pytest.mark.parametrize("rows", [[], [[]], [[example("a", 2)], [example("b", 2)]]])
def test_a_packed_batch_is_exactly_one_row(rows):
    with pytest.raises(ValueError, match=r"one row of samples, got \d row"):
        PackingCollator()(rows)


def test_the_batch_says_how_much_work_it_is():
    rows = [example("a", 2, patches=4), example("b", 5), example("c", 3, patches=8)]
    batch = DataCollatorForMultimodalDataset(pad_id=PAD)(rows)
    assert batch["shape"] == BatchShape((2, 5, 3), ((1, 2, 2), (1, 2, 4)), 3)
