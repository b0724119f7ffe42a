"""G1, G2, G3: thinking budgets, batches and many questions on one image; greedy, ids equal.

What the reference does, in our words.  One prompt at a time.  With a budget it decodes that many
tokens; if the answer has not ended, it appends the closing sentence (unless thinking closed by
itself) and decodes the rest from a new beginning: prompt and thought are read again.  Its
checkpoint code keeps the embeddings for that, its chat runs the vision tower again as well.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.model.agreement import same_ids
from benchmarks.model.tiny_ovis import (
    TOKEN_IDS,
    Prompt,
    build_model,
    image_prompt,
    pad_left,
    random_text,
)
from benchmarks.suite import Trial
from benchmarks.workload import digest, generator
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration

Model = Ovis2_5ForConditionalGeneration
Ids = list[list[int]]
#: Of a row's own tokens at least this share must be different ones: a model that says one word
#: for ever would agree with itself however it was decoded.
DISTINCT_FRACTION = 0.25


def build_one_pass(
    seed: int, *, side: int, budget: int, total: int, narrow: bool = False
) -> Trial:
    """G1: one image, thinking cut at its budget.

    Args:
        seed: Of the prompt.
        side: Of the image, in pixels.
        budget: Tokens of thinking.
        total: Tokens in all.
        narrow: Use the narrower model.
    """
    model = build_model(narrow)
    prompt = image_prompt(generator(seed), height=side, width=side, text_tokens=24)
    limits = {"budget": budget, "total": total}
    return Trial(
        variants={
            "two phases, all read twice": partial(
                two_phases, model, [prompt], **limits, tower_twice=True
            ),
            "two phases, tower once": partial(
                two_phases, model, [prompt], **limits, tower_twice=False
            ),
            "ours": partial(batched, model, [prompt], **limits),
        },
        compare=same_ids,
        sha256=_digest([prompt], limits),
        usable=partial(runs_to_its_end, total=total, forced=len(TOKEN_IDS.closing_sentence)),
    )


def build_batch(
    seed: int, *, sides: Sequence[int], budget: int, total: int, narrow: bool = False
) -> Trial:
    """G2: images of different size, with questions of different length, in one batch."""
    model = build_model(narrow)
    random = generator(seed)
    prompts = [
        image_prompt(random, height=sides[-1 - number], width=side, text_tokens=16 + 3 * number)
        for number, side in enumerate(sides)
    ]
    limits = {"budget": budget, "total": total}
    return Trial(
        variants={
            "one by one, two phases": partial(
                two_phases, model, prompts, **limits, tower_twice=True
            ),
            "ours": partial(batched, model, prompts, **limits),
        },
        compare=same_ids,
        sha256=_digest(prompts, limits),
        usable=partial(runs_to_its_end, total=total, forced=len(TOKEN_IDS.closing_sentence)),
    )


def build_questions(
    seed: int, *, side: int, questions: int, total: int, narrow: bool = False
) -> Trial:
    """G3: several questions on one image."""
    model = build_model(narrow)
    random = generator(seed)
    image = image_prompt(random, height=side, width=side, text_tokens=1)
    asked = [random_text(random, 12 + 2 * number) for number in range(questions)]
    return Trial(
        variants={
            "one by one": partial(one_by_one, model, image, asked, total=total),
            "ours": partial(with_prefix, model, image, asked, total=total),
        },
        compare=same_ids,
        sha256=_digest([image], asked, total),
        usable=partial(runs_to_its_end, total=total, forced=0),
    )


@torch.no_grad()
def two_phases(
    model: Model, prompts: Sequence[Prompt], *, budget: int, total: int, tower_twice: bool
) -> Ids:
    """Answer prompts one by one, each in the reference's two phases."""
    return [
        _two_phases(model, prompt, budget, total, tower_twice=tower_twice) for prompt in prompts
    ]


def _two_phases(
    model: Model, prompt: Prompt, budget: int, total: int, *, tower_twice: bool
) -> list[int]:
    read = (prompt.input_ids, prompt.pixel_values, prompt.grid_thws)
    embeds = model.merge_multimodal(*read)
    written = _continue(model, embeds, budget)
    if TOKEN_IDS.im_end in written[0]:
        return _row(written)
    if TOKEN_IDS.think_close not in written[0]:
        written = torch.cat([written, torch.tensor([TOKEN_IDS.closing_sentence])], dim=1)
    if tower_twice:
        embeds = model.merge_multimodal(*read)
    again = torch.cat([embeds, model.get_input_embeddings()(written)], dim=1)
    rest = _continue(model, again, total - written.shape[1])
    return _row(torch.cat([written, rest], dim=1))


def _continue(model: Model, embeds: Tensor, max_new_tokens: int) -> Tensor:
    new_ids: Tensor = model.llm.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.int64),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=TOKEN_IDS.im_end,
        pad_token_id=TOKEN_IDS.pad,
    )
    return new_ids


def batched(model: Model, prompts: Sequence[Prompt], *, budget: int, total: int) -> Ids:
    """Answer prompts in one batch and one pass."""
    input_ids, attention_mask = pad_left([prompt.input_ids for prompt in prompts])
    new_ids = model.generate(
        input_ids,
        attention_mask,
        torch.cat([prompt.pixel_values for prompt in prompts]),
        torch.cat([prompt.grid_thws for prompt in prompts]),
        thinking_budget=budget,
        max_new_tokens=total,
    )
    return [_row(row[None]) for row in new_ids]


def one_by_one(model: Model, image: Prompt, asked: Sequence[Tensor], *, total: int) -> Ids:
    """Ask every question with the whole prompt, as if the others were not."""
    answers = []
    for question in asked:
        new_ids = model.generate(
            torch.cat([image.input_ids, question], dim=1),
            None,
            image.pixel_values,
            image.grid_thws,
            max_new_tokens=total,
        )
        answers.append(_row(new_ids))
    return answers


def with_prefix(model: Model, image: Prompt, asked: Sequence[Tensor], *, total: int) -> Ids:
    """Read the image once and ask all questions in one batch."""
    prefix = model.encode_prefix(image.input_ids, image.pixel_values, image.grid_thws)
    input_ids, attention_mask = pad_left(asked)
    new_ids = model.generate(input_ids, attention_mask, prefix=prefix, max_new_tokens=total)
    return [_row(row[None]) for row in new_ids]


def runs_to_its_end(answers: Ids, *, total: int, forced: int) -> bool:
    """Tell whether every row was cut by its budget, ran to the last token and said enough.

    Args:
        answers: Ids of each row.
        total: Tokens a row may have.
        forced: Of these, how many were forced.
    """
    for ids in answers:
        own = total - forced
        closings = ids.count(TOKEN_IDS.think_close)
        if len(ids) != total or closings != bool(forced):
            return False
        if len(set(ids)) < DISTINCT_FRACTION * own:
            return False
    return True


def _row(new_ids: Tensor) -> list[int]:
    """Return the ids of [1, num_new_tokens] up to the end of the turn."""
    ids: list[int] = new_ids[0].tolist()
    end = ids.index(TOKEN_IDS.im_end) + 1 if TOKEN_IDS.im_end in ids else len(ids)
    return ids[:end]


def _digest(prompts: Sequence[Prompt], *others: object) -> str:
    tensors = [
        part
        for prompt in prompts
        for part in (prompt.input_ids, prompt.pixel_values, prompt.grid_thws)
    ]
    flat = [part for other in others for part in (other if isinstance(other, list) else [other])]
    return digest(*tensors, *flat)
