"""Where the reference is wrong and ours is meant to be right; docs/parity.md explains each.

These run everywhere, on a tiny model.  What needs the reference's numbers stands beside the
comparison it belongs to, in the other files of this folder.
"""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import TrainingArguments

from ovis_model.data.checks.inspection import unsafe_reason
from ovis_model.data.collator import DataCollatorForMultimodalDataset
from ovis_model.data.dataset import ConversationDataset, Example, Extent, check_extents
from ovis_model.data.media.images import to_rgb
from ovis_model.data.schema import parse_sample
from ovis_model.errors import DataError, TrainingError
from ovis_model.evaluation.answers import extract_answer
from ovis_model.inference.thinking import parse_generation
from ovis_model.modeling.checkpoint import load_model
from ovis_model.modeling.modeling_siglip2_navit import rope_angles
from ovis_model.processing.processing_ovis2_5 import EncodedSample, Ovis2_5Processor, pad_batch
from ovis_model.training.interruption import Interruption
from ovis_model.training.safeguards import Safeguards
from ovis_model.training.step_guard import StepGuard
from ovis_model.training.trainer import OvisTrainer
from ovis_model.training.watchdog import Watchdog
from tests.support.tiny_model import build_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def model(checkpoint):
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def processor(checkpoint):
    return Ovis2_5Processor.from_pretrained(checkpoint)


def text(ids):
    ids = torch.tensor(ids)
    return EncodedSample(input_ids=ids, labels=ids, pixel_values=None, grid_thws=None)


# ---- data -----------------------------------------------------------------------------------


def test_what_transparent_pixels_hide_stays_hidden():
    """DIVERGES(rgb-conversion)."""
    hidden = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert hidden.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert to_rgb(hidden).getpixel((0, 0)) == (255, 255, 255)


def test_a_video_may_be_a_list_of_frames():
    """DIVERGES(video-as-frames)."""
    turns = [{"from": "human", "value": "<video>"}, {"from": "gpt", "value": "Yes."}]
    sample = parse_sample({"id": 1, "video": ["0.png", "1.png"], "conversations": turns})
    assert sample.frames == ("0.png", "1.png")


@pytest.mark.parametrize("path", ["../a.png", "/etc/a.png", "~/a.png"])
def test_a_sample_cannot_name_files_outside_its_data(path, tmp_path):
    """DIVERGES(paths-inside-data)."""
    assert unsafe_reason(path, tmp_path) is not None
    assert unsafe_reason("images/a.png", tmp_path) is None


def test_a_sample_that_is_too_long_stops_the_training_by_name():
    """DIVERGES(over-long-samples)."""
    with pytest.raises(DataError, match=r"s1 \(11 tokens, limit 10\)"):
        check_extents(
            [SimpleNamespace(id="s1")],
            [Extent(num_tokens=11, num_supervised=1, is_multimodal=False)],
            multimodal_max_length=99,
            text_max_length=10,
        )


@pytest.mark.parametrize("lengths", [[3], [2, 2]], ids=["one row", "rows of one length"])
def test_a_batch_without_padding_has_no_column_of_it(lengths):
    """DIVERGES(extra-pad-column)."""
    batch = pad_batch([text([5] * length) for length in lengths], pad_id=0, side="right")
    assert batch["input_ids"].shape == (len(lengths), lengths[0])
    assert batch["attention_mask"].all()


# ---- model ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        pytest.param([1, -301, -300, -300, -300, -302], "reserve 3 .* give 1", id="too many"),
        pytest.param([1, -301, -302], "reserve 0 .* give 1", id="none"),
        pytest.param([1, -200], "unexpanded", id="a placeholder"),
    ],
)
def test_one_visual_token_fills_one_position(model, ids, message):
    """DIVERGES(visual-token-count)."""
    pixel_values = torch.zeros(4, 768, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        model(torch.tensor([ids]), None, pixel_values, torch.tensor([[1, 2, 2]]))


def test_casting_the_model_rounds_no_rotary_angle(model):
    """DIVERGES(exact-rotary-angles)."""
    before = model.llm.model.rotary_emb.inv_freq.clone()
    seen = []
    first = model.visual_tokenizer.vit.vision_model.encoder.layers[0]
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    model.bfloat16()
    assert torch.equal(model.llm.model.rotary_emb.inv_freq, before)
    model.embed_media(torch.zeros(48, 768, dtype=torch.uint8), torch.tensor([[1, 8, 6]]))
    angles = rope_angles(8, 6, model.config.vit.head_dim, 2)
    cosines = torch.cat([angles, angles], dim=-1).cos()
    assert torch.equal(seen[0][0][:, 0], cosines)


# ---- generation -----------------------------------------------------------------------------


def prompt(processor, question="Hi"):
    messages = [{"role": "user", "content": question}]
    return processor.encode_prompt(messages, enable_thinking=True).input_ids[None]


def test_a_pad_token_inside_the_prompt_is_read(model, processor):
    """DIVERGES(pad-inside-prompt)."""
    ids = prompt(processor)
    ids[0, 4] = model.token_ids.pad
    everything = torch.ones_like(ids)
    hidden = everything.clone()
    hidden[0, 4] = 0
    ours = decoded_scores(model, ids, None)
    assert torch.equal(ours, decoded_scores(model, ids, everything))
    assert not torch.equal(ours, decoded_scores(model, ids, hidden))


def decoded_scores(model, ids, attention_mask):
    """Return the scores of the first new token."""
    scores = []

    def keep(_, values):
        scores.append(values.clone())
        return values

    model.generate(ids, attention_mask, max_new_tokens=1, logits_processor=[keep])
    return scores[0]


def test_a_row_that_ended_while_it_thought_is_not_opened_again(model, processor):
    """DIVERGES(any-end-ends)."""
    ids = prompt(processor)
    room = len(model.token_ids.closing_sentence) + 8
    free = model.generate(ids, max_new_tokens=3, eos_token_id=-1)[0].tolist()
    ended = model.generate(
        ids,
        thinking_budget=4,
        max_new_tokens=room,
        eos_token_id=[model.token_ids.im_end, free[1]],
    )
    length = free.index(free[1]) + 1
    assert ended[0].tolist() == free[:length]


def test_a_penalty_remembers_what_was_thought(model, processor):
    """DIVERGES(penalty-history)."""
    ids = prompt(processor)
    closing = list(model.token_ids.closing_sentence)
    histories = []

    def watch(input_ids, scores):
        histories.append(input_ids[0].tolist())
        return scores

    new_ids = model.generate(
        ids,
        thinking_budget=2,
        max_new_tokens=len(closing) + 4,
        eos_token_id=-1,
        logits_processor=[watch],
    )[0].tolist()
    assert new_ids[2:-2] == closing
    # Whatever looks back over the text, as a penalty does, sees thought and answer as one.
    assert histories[-1] == new_ids[:-1]


def test_a_budget_that_leaves_no_room_is_refused_before_decoding(model, processor):
    """DIVERGES(budget-without-room)."""
    started = []
    with pytest.raises(ValueError, match="set max_new_tokens to at least "):
        model.generate(
            prompt(processor),
            thinking_budget=4,
            max_new_tokens=4 + len(model.token_ids.closing_sentence),
            logits_processor=[lambda _, scores: started.append(1) or scores],
        )
    assert not started


def test_a_thought_that_never_closes_is_no_answer(processor):
    """DIVERGES(unclosed-thought)."""
    assert extract_answer(parse(processor, "<think>\nIt is a 7")) == ""
    assert extract_answer(parse(processor, "<think>\nIt is a 7\n</think>\n\n8")) == "8"


def parse(processor, written):
    ids = processor.tokenizer.encode(written, add_special_tokens=False)
    token_ids = processor.token_ids
    return parse_generation(ids, processor.tokenizer, token_ids, eos_ids={token_ids.im_end})


# ---- training -------------------------------------------------------------------------------


@pytest.fixture
def trainer(model, processor, tmp_path):
    rates = {"vte.weight": 1e-3, "llm.lm_head.weight": 1e-5}
    return OvisTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[]),
        train_dataset=ConversationDataset([], media_root=tmp_path, processor=processor),
        collator=DataCollatorForMultimodalDataset(pad_id=0),
        lengths=[],
        rates=rates,
        keep_checkpoints=1,
        callbacks=[],
        safeguards=Safeguards(
            StepGuard(world_size=1, spike_factor=None, spike_window=1),
            Watchdog(0, rank=0),
            Interruption(),
        ),
    )


def test_the_rates_of_the_modules_reach_the_optimizer_that_runs(trainer):
    """DIVERGES(module-learning-rates)."""
    groups = trainer.create_optimizer().param_groups
    assert {group["lr"] for group in groups} == {1e-3, 1e-5}


def test_a_batch_that_teaches_nothing_stops_the_run_and_is_named(trainer, model):
    """DIVERGES(nothing-to-learn)."""
    sample = text([5, 6])
    batch = DataCollatorForMultimodalDataset(pad_id=0)([Example("s1", sample)])
    batch |= {"labels": torch.full((1, 2), -100), "num_supervised_tokens": 0}
    with pytest.raises(TrainingError, match=r"samples s1\. No token of this batch is learned"):
        trainer.compute_loss(model, batch)
