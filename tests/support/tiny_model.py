"""A tiny real Ovis2.5 with a toy tokenizer, built in a second: for tests that need a model.

    build_tiny_checkpoint(path)    writes a folder in the official layout, random weights

Same classes and files as a released checkpoint; about 0.1 million parameters.
"""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ovis_model.config import FrameSampling, PixelLimits
from ovis_model.modeling.checkpoint import save_checkpoint
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.processing.image_processing_ovis2_5 import Ovis2_5ImageProcessor
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.tokens import ADDED_TOKENS, CLOSING_SENTENCE, END_OF_TEXT, IM_END

#: What the toy tokenizer writes in few tokens; every other byte is a token of its own.
TEXTS = (
    *([CLOSING_SENTENCE.removesuffix("</think>\n\n")] * 50),
    *(["system\nuser\nassistant\n", "Which digit is this?", "The strokes form the digit "] * 20),
)
#: 32 px x 32 px is one visual token: images cost next to nothing.
TINY_PIXELS = PixelLimits(
    single_image_min_pixels=32 * 32,
    single_image_max_pixels=64 * 64,
    multiple_image_min_pixels=32 * 32,
    multiple_image_max_pixels=64 * 64,
    video_min_pixels=32 * 32,
    video_max_pixels=64 * 64,
)
TINY_FRAMES = FrameSampling(min_frames=2, max_frames=2)

#: Qwen3's chat format, as far as the tests go: text, image and video parts, joined by newlines.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content.split('</think>')[-1].lstrip('\n') if message.role == 'assistant'
   else message.content }}
{%- else -%}
{%- for part in message.content -%}
{{ part.text | replace('<image>', '') | replace('<video>', '') if part.type == 'text'
   else '<' ~ part.type ~ '>' }}{{ '' if loop.last else '\n' }}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false -%}
{{ '<think>\n\n</think>\n\n' }}
{%- endif -%}
{%- endif -%}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on a few strings and append Qwen3's tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens(
        [AddedToken(name, normalized=False, special=special) for name, special in ADDED_TOKENS]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> Ovis2_5Config:
    """Return a configuration of two small layers per part."""
    return Ovis2_5Config(
        llm_config={
            "model_type": "qwen3",
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "rope_theta": 1_000_000,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
            "bos_token_id": tokenizer.convert_tokens_to_ids(END_OF_TEXT),
            "eos_token_id": tokenizer.convert_tokens_to_ids(IM_END),
        },
        vit_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
        },
        visual_vocab_size=64,
    )


def build_tiny_checkpoint(
    path: Path,
    *,
    seed: int = 0,
    pixel_limits: PixelLimits = TINY_PIXELS,
    frame_sampling: FrameSampling = TINY_FRAMES,
) -> Path:
    """Write a tiny checkpoint and return its folder.

    Args:
        path: Folder to write.
        seed: Of the random weights; another seed gives another model of the same shape.
        pixel_limits: Saved with the processor.
        frame_sampling: Saved with the processor.
    """
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model = Ovis2_5ForConditionalGeneration(tiny_config(tokenizer)).eval()
    processor = Ovis2_5Processor(
        Ovis2_5ImageProcessor(),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
        pixel_limits=pixel_limits,
        frame_sampling=frame_sampling,
    )
    save_checkpoint(model, processor, path)
    return path
