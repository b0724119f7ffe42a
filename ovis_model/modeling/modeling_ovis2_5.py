"""Ovis2.5: a Qwen3 language model that reads images as mixtures of visual words.

Shapes are written [in, brackets], with these names in this file:

    batch, seq_len   text positions, visual positions included
    num_patches      patches of all media of the batch, one after another
    num_media        images and videos of the batch, in the order of their placeholders

Source: AIDC-AI/Ovis2.5-9B, `modeling_ovis2_5.py` (August 2025), and for the dummy visual pass
AIDC-AI/Ovis @ 4de4946, `ovis/model/modeling_ovis.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LogitsProcessorList,
    PreTrainedModel,
    Qwen3ForCausalLM,
)
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_siglip2_navit import PatchEmbedding, PositionEmbedding
from ovis_model.modeling.thinking_budget import ThinkingBudgetLogitsProcessor
from ovis_model.modeling.visual_tokenizer import VisualEmbedding, VisualTokenizer
from ovis_model.tokens import (
    IMAGE_BEGIN_ID,
    IMAGE_PLACEHOLDER_ID,
    INDICATOR_IDS,
    VIDEO_END_ID,
    VIDEO_PLACEHOLDER_ID,
    VISUAL_ATOM_ID,
    TokenIds,
)


class Ovis2_5PreTrainedModel(PreTrainedModel):
    """What transformers needs to know to load, save and initialise the model."""

    config_class = Ovis2_5Config
    config: Ovis2_5Config
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _no_split_modules = ["Qwen3DecoderLayer", "Siglip2NavitEncoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise new weights; the vision embeddings as SigLIP does.

        With one width for all, a patch's content would outweigh its place about 25 times, and a
        model trained from random weights would learn what it sees long before where.
        """
        if isinstance(module, PatchEmbedding | PositionEmbedding):
            init.normal_(module.weight, std=module.initial_std)
            if isinstance(module, PatchEmbedding) and module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]


class Ovis2_5ForConditionalGeneration(Ovis2_5PreTrainedModel):
    """Vision tower, visual embedding table and language model under the released names."""

    _tied_weights_keys = {"llm.lm_head.weight": "llm.model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Ovis2_5Config) -> None:
        super().__init__(config)
        self.llm = Qwen3ForCausalLM._from_config(config.llm)
        self.visual_tokenizer = VisualTokenizer(config)
        self.vte = VisualEmbedding(config.visual_vocab_size, self.llm.config.hidden_size)
        #: Ids of the checkpoint's own tokenizer; `load_model` sets them, `generate` needs them.
        self.token_ids: TokenIds | None = None
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """Return the text embedding table."""
        embeddings: nn.Module = self.llm.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the text embedding table."""
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the language model's head."""
        head: nn.Module = self.llm.get_output_embeddings()
        return head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's head."""
        self.llm.set_output_embeddings(value)

    def merge_multimodal(
        self, input_ids: Tensor, pixel_values: Tensor | None, grid_thws: Tensor | None
    ) -> Tensor:
        """Embed text and media as one sequence.

        Args:
            input_ids: Ids with expanded visual positions (negative), int64 [batch, seq_len].
            pixel_values: Patches of all media, [num_patches, 768], or None.
            grid_thws: (t, h, w) per medium, int64 [num_media, 3], or None.

        Returns:
            Embeddings [batch, seq_len, hidden].

        Raises:
            ValueError: If placeholders were not expanded, or if the visual positions and the
                media disagree in number.
        """
        placeholders = (input_ids == IMAGE_PLACEHOLDER_ID) | (input_ids == VIDEO_PLACEHOLDER_ID)
        if placeholders.any():
            raise ValueError(
                "input_ids hold unexpanded <image>/<video> placeholders; encode the prompt "
                "together with its media through Ovis2_5Processor"
            )
        # Negative ids borrow token 0 for a moment and are overwritten below.
        embeds: Tensor = self.get_input_embeddings()(input_ids.clamp(min=0))
        indicators = (input_ids <= IMAGE_BEGIN_ID) & (input_ids >= VIDEO_END_ID)
        # In training also for no indicator at all: ZeRO-1/2 reduce gradients in order of arrival,
        # so text and images must build the graph in the same order on every rank.
        if self.training or indicators.any():
            first_row = self.config.visual_vocab_size - len(INDICATOR_IDS)
            rows = first_row + IMAGE_BEGIN_ID - input_ids[indicators]
            embeds[indicators] = self.vte(rows).to(embeds.dtype)
        atoms = input_ids == VISUAL_ATOM_ID
        if pixel_values is None or grid_thws is None:
            if atoms.any():
                raise ValueError(
                    f"input_ids reserve {int(atoms.sum())} visual positions but no pixel_values "
                    "and grid_thws were given"
                )
            return self._touch_visual_parameters(embeds) if self.training else embeds
        visual = self.vte(self.visual_tokenizer(pixel_values, grid_thws))
        if int(atoms.sum()) != len(visual):
            raise ValueError(
                f"input_ids reserve {int(atoms.sum())} visual positions but the media give "
                f"{len(visual)} visual tokens"
            )
        embeds[atoms] = visual.to(embeds.dtype)
        return embeds

    def _touch_visual_parameters(self, embeds: Tensor) -> Tensor:
        """Give text-only batches a zero visual gradient.

        Ranks that skip the vision tower crash ZeRO-1/2 and hang ZeRO-3 when another rank has an
        image: every micro-batch must touch the same parameters.
        """
        vit = self.config.vit
        cell = vit.hidden_stride
        patches = embeds.new_zeros(cell**2, vit.num_channels * vit.patch_size**2)
        grid = torch.tensor([[1, cell, cell]], device=embeds.device)
        visual: Tensor = self.vte(self.visual_tokenizer(patches, grid))
        return embeds + visual.sum() * 0.0

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        grid_thws: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Predict the next token at every position.

        Args:
            input_ids: Ids with expanded visual positions, int64 [batch, seq_len].
            attention_mask: True at real positions, bool [batch, seq_len].
            pixel_values: Patches of all media, [num_patches, 768].
            grid_thws: (t, h, w) per medium, int64 [num_media, 3].
            labels: Ids to predict, -100 where nothing is learned, int64 [batch, seq_len].
            position_ids: Positions when they are not 0, 1, 2, ..., int64 [batch, seq_len].
            inputs_embeds: Embeddings instead of ids and media, [batch, seq_len, hidden].
            past_key_values: Key-value cache.
            use_cache: Whether to return a cache.
            logits_to_keep: Compute logits for the last so many positions; 0 means all.
            **kwargs: `num_items_in_batch` normalises the loss; the rest goes to the LLM.

        Returns:
            Logits [batch, seq_len, vocab], and the loss when labels are given.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("forward needs input_ids or inputs_embeds")
            inputs_embeds = self.merge_multimodal(input_ids, pixel_values, grid_thws)
        outputs: CausalLMOutputWithPast = self.llm(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        return outputs

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        grid_thws: Tensor | None = None,
        *,
        thinking_budget: int | None = None,
        max_new_tokens: int,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
        **generation_kwargs: Any,
    ) -> Tensor:
        """Continue prompts; greedy unless sampling is asked for.

        Args:
            input_ids: Prompts with expanded visual positions, padded on the left,
                int64 [batch, seq_len].
            attention_mask: True at real positions, bool [batch, seq_len]; None takes leading
                pad tokens as padding.
            pixel_values: Patches of all media, [num_patches, 768].
            grid_thws: (t, h, w) per medium, int64 [num_media, 3].
            thinking_budget: Tokens a row may generate before its thinking must have closed; None
                leaves it unbounded.
            max_new_tokens: Tokens per row, thinking and closing sentence included.
            eos_token_id: Ids that end a row; None means the tokenizer's `<|im_end|>`.
            pad_token_id: Fills rows that ended early; None means `<|endoftext|>`.
            **generation_kwargs: Anything `transformers` generation takes, such as do_sample,
                temperature, repetition_penalty or streamer.

        Returns:
            New ids only, int64 [batch, num_new_tokens].

        Raises:
            ValueError: If ids of special tokens are needed but unknown, or if the budget leaves
                no room for the closing sentence and an answer.
        """
        eos = eos_token_id if eos_token_id is not None else self._known_token_ids().im_end
        pad = pad_token_id if pad_token_id is not None else self._known_token_ids().pad
        if attention_mask is None:
            attention_mask = (input_ids != pad).cumsum(dim=1) > 0
        processors = LogitsProcessorList(generation_kwargs.pop("logits_processor", None) or [])
        if thinking_budget is not None:
            token_ids = self._known_token_ids()
            _check_budget(thinking_budget, max_new_tokens, token_ids)
            processors.append(ThinkingBudgetLogitsProcessor(thinking_budget, token_ids))
        generation_kwargs.setdefault("do_sample", False)
        new_ids: Tensor = self.llm.generate(
            inputs_embeds=self.merge_multimodal(input_ids, pixel_values, grid_thws),
            attention_mask=attention_mask.to(torch.int64),
            logits_processor=processors,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos,
            pad_token_id=pad,
            **generation_kwargs,
        )
        return new_ids

    def _known_token_ids(self) -> TokenIds:
        if self.token_ids is None:
            raise ValueError(
                "the model does not know its tokenizer's ids; load it with "
                "ovis_model.modeling.checkpoint.load_model, or set model.token_ids = "
                "TokenIds.of(tokenizer)"
            )
        return self.token_ids


def _check_budget(budget: int, max_new_tokens: int, token_ids: TokenIds) -> None:
    if budget < 1:
        raise ValueError(f"thinking_budget must be at least 1 token, got {budget}")
    needed = budget + len(token_ids.closing_sentence) + 1
    if max_new_tokens < needed:
        raise ValueError(
            f"thinking_budget {budget} plus the closing sentence of "
            f"{len(token_ids.closing_sentence)} tokens and one token of answer need "
            f"max_new_tokens >= {needed}, got {max_new_tokens}"
        )


# exist_ok: a future transformers may bring its own `ovis2_5`.
AutoConfig.register("ovis2_5", Ovis2_5Config, exist_ok=True)
AutoModelForCausalLM.register(Ovis2_5Config, Ovis2_5ForConditionalGeneration, exist_ok=True)
