"""Ovis2.5: a Qwen3 language model that reads images as mixtures of visual words.

Shapes are written [in, brackets], with these names in this file:

    batch, seq_len   text positions, visual positions included
    num_patches      patches of all media of the batch, one after another
    num_media        images and videos of the batch, in the order of their placeholders
    num_tokens       visual positions of the batch, indicators left out

Source: AIDC-AI/Ovis2.5-9B, `modeling_ovis2_5.py` (August 2025), and for the dummy visual pass
AIDC-AI/Ovis @ 4de4946, `ovis/model/modeling_ovis.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, Qwen3ForCausalLM
from transformers.modeling_utils import slice_logits_to_keep

from ovis_model.modeling.attention import (
    PACKED_ATTENTION,
    check_implementation,
    check_packed_row,
    describe_attention,
    packed_arguments,
)
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.folder_files import find_token_ids
from ovis_model.modeling.loss import LanguageModelHead, OvisOutput, next_token_targets
from ovis_model.modeling.pretrained_model import Ovis2_5PreTrainedModel
from ovis_model.modeling.prompt_prefix import PromptPrefix
from ovis_model.modeling.rotary_embedding import Float32RotaryEmbedding
from ovis_model.modeling.thinking_budget import budget_arguments, check_budget
from ovis_model.modeling.visual_tokenizer import (
    SeenMedia,
    VisualEmbedding,
    VisualTokenizer,
    embed_features,
)
from ovis_model.tokens import (
    IGNORE_ID,
    IMAGE_BEGIN_ID,
    IMAGE_PLACEHOLDER_ID,
    INDICATOR_IDS,
    VIDEO_END_ID,
    VIDEO_PLACEHOLDER_ID,
    VISUAL_ATOM_ID,
    TokenIds,
)

#: Logits that a training step still returns beside its loss, in numbers: more would cost memory
#: and time for something that training does not read.
MAX_LOGITS_IN_TRAINING = 1 << 19
#: Parts whose blocks can be recomputed in the backward pass.
CHECKPOINTED_PARTS = ("llm", "vit")


class Ovis2_5ForConditionalGeneration(Ovis2_5PreTrainedModel):
    """Vision tower, visual embedding table and language model under the released names."""

    _tied_weights_keys = {"llm.lm_head.weight": "llm.model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Ovis2_5Config) -> None:
        super().__init__(config)
        self.llm = Qwen3ForCausalLM._from_config(config.llm)
        self.llm.lm_head = LanguageModelHead(
            config.llm.hidden_size, config.llm.vocab_size, bias=False
        )
        self.llm.model.rotary_emb = Float32RotaryEmbedding(config.llm)
        self.visual_tokenizer = VisualTokenizer(config)
        self.vte = VisualEmbedding(config.visual_vocab_size, config.llm.hidden_size)
        #: Ids of the checkpoint's own tokenizer; `load_model` sets them, `generate` needs them.
        self.token_ids: TokenIds | None = None
        #: Which parts `gradient_checkpointing_enable` is about.
        self.checkpointed_parts: tuple[str, ...] = CHECKPOINTED_PARTS
        self.post_init()  # type: ignore[no-untyped-call]
        # transformers says "sdpa" where the caller said nothing.
        asked = config._attn_implementation
        self.set_attention("auto" if asked in (None, "sdpa") else asked)

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
        if type(value) is nn.Linear:  # resize_token_embeddings makes one
            value.__class__ = LanguageModelHead
        self.llm.set_output_embeddings(value)

    def set_attention(self, implementation: str) -> None:
        """Choose how attention is computed, in the vision tower and in the language model.

        Args:
            implementation: One of `attention.IMPLEMENTATIONS`; "auto" decides by device and
                precision each time.

        Raises:
            ConfigError: If there is no such implementation here.
        """
        self.attention = check_implementation(implementation)
        self.visual_tokenizer.vit.vision_model.encoder.attn_implementation = implementation
        own = implementation in ("auto", "sdpa", "varlen")
        self.llm.set_attn_implementation(PACKED_ATTENTION if own else implementation)

    @property
    def attention_in_use(self) -> dict[str, str]:
        """What runs where the weights are now, for the vision tower and the language model."""
        weight = self.vte.weight
        return describe_attention(self.attention, weight.device, weight.dtype)

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        """Recompute blocks in the backward pass, in `checkpointed_parts` only."""
        super()._set_gradient_checkpointing(enable, *args, **kwargs)
        parts: dict[str, nn.Module] = {"llm": self.llm, "vit": self.visual_tokenizer.vit}
        for name in set(CHECKPOINTED_PARTS) - set(self.checkpointed_parts):
            for module in parts[name].modules():
                if hasattr(module, "gradient_checkpointing"):
                    setattr(module, "gradient_checkpointing", False)  # noqa: B010 - mypy

    def embed_media(
        self,
        pixel_values: Tensor | None,
        grid_thws: Tensor | None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Embed images and videos.

        Args:
            pixel_values: Patches of all media, uint8, or floats in [-1, 1], [num_patches, 768].
            grid_thws: (t, h, w) per medium, int64 [num_media, 3].
            features: What the tower says of them, if known, [num_tokens, 4 * vit_hidden].

        Returns:
            One embedding per 2x2 patches, [num_tokens, hidden].
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.sees_and_learns):
            if features is None:
                features = self.visual_tokenizer.vit(pixel_values, grid_thws)
            return embed_features(self.visual_tokenizer, self.vte, features)

    @property
    def sees_and_learns(self) -> bool:
        """Whether anything learns that media pass on their way to the language model."""
        modules = (self.visual_tokenizer, self.vte)
        return any(one.requires_grad for module in modules for one in module.parameters())

    def merge_multimodal(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None,
        grid_thws: Tensor | None,
        seen: SeenMedia | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Embed text and media as one sequence.

        Args:
            input_ids: Ids with expanded visual positions (negative), int64 [batch, seq_len].
            pixel_values: Patches of all media, [num_patches, 768], or None.
            grid_thws: (t, h, w) per medium, int64 [num_media, 3], or None.
            seen: What is known of media already, instead of them.
            labels: If there are any, a loss is measured, by all processes in step at ZeRO-3.

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
        if embeds.is_leaf and embeds.requires_grad:
            # Of a frozen table, and made to require a gradient by transformers for checkpointing:
            # such a tensor may not be written to.
            embeds = embeds.clone()
        indicators = (input_ids <= IMAGE_BEGIN_ID) & (input_ids >= VIDEO_END_ID)
        in_step = self.training or (labels is not None and hasattr(self.vte.weight, "ds_id"))
        # In training also for no indicator at all: ZeRO-1/2 reduce gradients in order of arrival,
        # so text and images must build the graph in the same order on every rank.
        if in_step or indicators.any():
            first_row = self.config.visual_vocab_size - len(INDICATOR_IDS)
            rows = first_row + IMAGE_BEGIN_ID - input_ids[indicators]
            embeds[indicators] = self.vte(rows).to(embeds.dtype)
        atoms = input_ids == VISUAL_ATOM_ID
        seen = seen or SeenMedia()
        visual = seen.embeds
        if seen.features is not None or (pixel_values is not None and grid_thws is not None):
            visual = self.embed_media(pixel_values, grid_thws, seen.features)
        if visual is None:
            if atoms.any():
                raise ValueError(
                    f"input_ids reserve {int(atoms.sum())} visual positions but no pixel_values "
                    "and grid_thws were given"
                )
            return self._touch_visual_parameters(embeds) if in_step else embeds
        # DIVERGES(visual-token-count): the reference spreads one visual token over any number.
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
        image: every micro-batch must touch the same parameters.  Frozen ones have no gradient,
        and matter to ZeRO-3 alone, which gathers them.
        """
        if not (self.sees_and_learns or hasattr(self.vte.weight, "ds_id")):
            return embeds
        vit = self.config.vit
        cell = vit.hidden_stride
        patches = embeds.new_zeros(cell**2, vit.num_channels * vit.patch_size**2)
        grid = torch.tensor([[1, cell, cell]], device=embeds.device)
        return embeds + self.embed_media(patches, grid).sum() * 0.0

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
        seen: SeenMedia | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        sequence_lengths: list[int] | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> OvisOutput:
        """Predict the next token at every position.

        Args:
            input_ids: Ids with expanded visual positions, int64 [batch, seq_len].
            attention_mask: True at real positions, bool [batch, seq_len].
            pixel_values: Patches of all media, [num_patches, 768].
            grid_thws: (t, h, w) per medium, int64 [num_media, 3].
            labels: Ids to predict, -100 where nothing is learned, int64 [batch, seq_len].
            position_ids: Positions when they are not 0, 1, 2, ..., int64 [batch, seq_len].
            inputs_embeds: Embeddings instead of ids and media, [batch, seq_len, hidden].
            seen: What is known of media already, instead of them.
            past_key_values: Key-value cache.
            use_cache: Whether to return a cache.
            logits_to_keep: Compute logits for the last so many positions, or for these; 0 means
                all.
            sequence_lengths: Lengths of the samples packed into the only row; each sees itself
                alone and begins at position 0.
            num_items_in_batch: Divides the summed loss; None takes the labels of this batch.
            **kwargs: Handed on to the language model.

        Returns:
            With labels the loss, and that of each token; logits [batch, seq_len, vocab], which in
            training are None unless they are few: the loss computes its own, where a label is.

        Raises:
            ValueError: If there is neither ids nor embeddings, if text and media disagree, or if
                packed lengths do not describe one unpadded row.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("forward needs input_ids or inputs_embeds")
            inputs_embeds = self.merge_multimodal(input_ids, pixel_values, grid_thws, seen, labels)
        kwargs.update(
            attention_mask=attention_mask, position_ids=position_ids, use_cache=use_cache
        )
        begins = None
        if sequence_lengths is not None:
            lengths = sequence_lengths
            segments = check_packed_row(inputs_embeds, attention_mask, lengths, self.attention)
            begins = segments.bounds[:-1].long()
            kwargs |= packed_arguments(segments, self.llm.config)
        outputs = self.llm.model(
            inputs_embeds=inputs_embeds, past_key_values=past_key_values, **kwargs
        )
        hidden = outputs.last_hidden_state
        loss = token_losses = None
        if labels is not None:
            targets = next_token_targets(labels, begins)
            loss, token_losses = self._loss(hidden, targets, num_items_in_batch)
        logits = None
        if loss is None or not self.training or self._has_few_logits(hidden):
            logits = self.llm.lm_head(slice_logits_to_keep(hidden, logits_to_keep))
        return OvisOutput(
            loss=loss,
            token_losses=token_losses,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _has_few_logits(self, hidden: Tensor) -> bool:
        num_logits: int = hidden[..., 0].numel() * self.config.llm.vocab_size
        return num_logits <= MAX_LOGITS_IN_TRAINING

    def _loss(
        self, hidden: Tensor, targets: Tensor, num_items: int | Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Mean cross entropy over learned positions (NaN if there is none), and that of each."""
        learned = targets != IGNORE_ID
        targets = targets[learned]
        token_losses = torch.empty_like(targets, dtype=torch.float32)
        total: Tensor = self.llm.lm_head(hidden[learned], targets, token_losses)
        if num_items is None:
            return total / learned.sum(), token_losses
        if isinstance(num_items, Tensor):
            num_items = num_items.to(total.device)
        return total / num_items, token_losses

    @torch.no_grad()
    def encode_prefix(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        grid_thws: Tensor | None = None,
    ) -> PromptPrefix:
        """Read the beginning that several prompts share.

        Args:
            input_ids: Ids with expanded visual positions, int64 [1, prefix_len].
            pixel_values: Patches of its media, [num_patches, 768].
            grid_thws: (t, h, w) per medium, int64 [num_media, 3].

        Returns:
            What `generate` takes as `prefix`, any number of times.

        Raises:
            ValueError: If there is not exactly one row with at least one position.
        """
        if len(input_ids) != 1 or not input_ids.numel():
            raise ValueError(
                f"a prefix is one row of at least one id, got shape {tuple(input_ids.shape)}"
            )
        cache = DynamicCache(config=self.config.llm)
        self.llm.model(
            inputs_embeds=self.merge_multimodal(input_ids, pixel_values, grid_thws),
            past_key_values=cache,
            use_cache=True,
        )
        return PromptPrefix.of(cache)

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
        prefix: PromptPrefix | None = None,
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
            prefix: What every row begins with, from `encode_prefix`; ids, mask and media are
                then those of the rest, one position at least.
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
        # DIVERGES(pad-inside-prompt): the reference hides a pad token wherever it stands.
        if attention_mask is None:
            attention_mask = (input_ids != pad).cumsum(dim=1) > 0
        attention_mask = attention_mask.to(torch.int64)
        if thinking_budget is not None:
            token_ids = self._known_token_ids()
            check_budget(thinking_budget, max_new_tokens, token_ids)
            generation_kwargs |= budget_arguments(thinking_budget, token_ids, generation_kwargs)
        generation_kwargs.setdefault("do_sample", False)
        embeds = self.merge_multimodal(input_ids, pixel_values, grid_thws)
        if prefix is not None:
            generation_kwargs["past_key_values"] = prefix.cache(len(input_ids))
            attention_mask = prefix.extend_mask(attention_mask)
            # transformers wants embeddings of the whole prompt and reads those not in the cache.
            embeds = nn.functional.pad(embeds, (0, 0, prefix.length, 0))
        new_ids: Tensor = self.llm.generate(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos,
            pad_token_id=pad,
            **generation_kwargs,
        )
        return new_ids

    def _known_token_ids(self) -> TokenIds:
        if self.token_ids is None:  # not loaded by load_model
            self.token_ids = find_token_ids(self.name_or_path)
        if self.token_ids is None:
            raise ValueError(
                "the model does not know its tokenizer's ids; load it with "
                "ovis_model.modeling.checkpoint.load_model, or set model.token_ids = "
                "TokenIds.of(tokenizer)"
            )
        return self.token_ids
