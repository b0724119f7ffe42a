"""Write the tiny base checkpoint: Ovis2.5's own classes, random weights, official layout.

    tiny-ovis2_5/    config.json, model.safetensors, tokenizer files, preprocessing, generation

It stands where a released Ovis2.5-2B or 9B stands in a real run and has the same files, so
that every later step treats it alike.  The same parameters give the same bytes, on any run.
"""

import argparse
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field
from tiny_tokenizer import id_of, train_tokenizer, write_json, write_tokenizer_files
from tokenizers import Tokenizer

from ovis_model.modeling.checkpoint import save_checkpoint
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config, Siglip2NavitConfig
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.tokens import CLOSING_SENTENCE, END_OF_TEXT, IM_END

HERE = Path(__file__).parent
#: The embedding table is longer than the vocabulary, as in the released models.
VOCAB_MULTIPLE = 64
#: What surrounds every message; the tokenizer should know these words.
SCAFFOLDING = ("system\n", "user\n", "assistant\n", "\n", "\n\n")
#: Seen as often as a frequent sentence: a forced closing should cost few tokens.
SCAFFOLDING_REPEATS = 100

log = logging.getLogger(__name__)


class BaseModelConfig(BaseModel):
    """Section `base_model` of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    text_vocab_size: int = Field(default=640, ge=256)
    config: dict[str, Any] = Field(default_factory=dict, description="keys of config.json")

    @classmethod
    def read(cls, params: Path) -> "BaseModelConfig":
        """Read the section, refusing keys it does not know."""
        return cls.model_validate(yaml.safe_load(params.read_text(encoding="utf-8"))["base_model"])


@dataclass(frozen=True)
class ProcessingFiles:
    """Everything in a checkpoint folder but the model: what turns messages into tensors."""

    tokenizer: Tokenizer
    image_size: int

    def save_pretrained(self, path: Path) -> None:
        """Write the files; called by `save_checkpoint` after the weights are written."""
        write_tokenizer_files(self.tokenizer, path)
        write_json(path / "preprocessor_config.json", self._preprocessor_config())
        # The model wrote a general one; the released checkpoints sample, and stop at two tokens.
        write_json(path / "generation_config.json", self._generation_config())

    def _preprocessor_config(self) -> dict[str, Any]:
        return {
            "do_convert_rgb": None,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "SiglipImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "processor_class": "SiglipProcessor",
            "resample": 2,
            "rescale_factor": 1 / 255,
            "size": {"height": self.image_size, "width": self.image_size},
        }

    def _generation_config(self) -> dict[str, Any]:
        end_of_text = id_of(self.tokenizer, END_OF_TEXT)
        return {
            "bos_token_id": end_of_text,
            "do_sample": True,
            "eos_token_id": [id_of(self.tokenizer, IM_END), end_of_text],
            "multimodal_max_length": 8192,
            "pad_token_id": end_of_text,
            "repetition_penalty": 1.05,
            "temperature": 0.6,
            "top_k": 20,
            "top_p": 0.95,
        }


def read_corpus(annotations: Path) -> Iterator[str]:
    """Yield all that the tokenizer should write well: the train texts and what frames them."""
    samples = json.loads(annotations.read_text(encoding="utf-8"))["conversations"]
    for sample in samples:
        for turn in sample["conversations"]:
            yield turn["value"]
    for _ in range(SCAFFOLDING_REPEATS):
        yield from (*SCAFFOLDING, CLOSING_SENTENCE)


def build_model(config: BaseModelConfig, tokenizer: Tokenizer) -> Ovis2_5ForConditionalGeneration:
    """Instantiate the model with seeded random weights, float32."""
    vocab_size = -(-tokenizer.get_vocab_size() // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    llm_config = {
        "bos_token_id": id_of(tokenizer, END_OF_TEXT),
        "eos_token_id": id_of(tokenizer, IM_END),
        "rope_theta": 1_000_000,
        "vocab_size": vocab_size,
        **config.config.get("llm_config", {}),
    }
    torch.manual_seed(config.seed)
    return Ovis2_5ForConditionalGeneration(
        Ovis2_5Config(**{**config.config, "llm_config": llm_config})
    )


def make_base_model(config: BaseModelConfig, annotations: Path, output: Path) -> None:
    """Write the checkpoint folder; a reader never sees half of it.

    Args:
        config: Sizes and seed.
        annotations: Train annotations, whose texts the tokenizer learns from.
        output: Folder to write; replaced if it exists.
    """
    tokenizer = train_tokenizer(read_corpus(annotations), vocab_size=config.text_vocab_size)
    model = build_model(config, tokenizer)
    vit_config = model.config.vit_config
    assert isinstance(vit_config, Siglip2NavitConfig)
    processing = ProcessingFiles(tokenizer, image_size=vit_config.image_size)
    save_checkpoint(model, processing, output)
    log.info(
        "%s: %.2f million parameters, %d tokens",
        output,
        model.num_parameters() / 1e6,
        tokenizer.get_vocab_size(),
    )


def main() -> None:
    """Command line: `python make_base_model.py [--params F] [--annotations F] [--output DIR]`."""
    parser = argparse.ArgumentParser(description="Write the tiny base checkpoint.")
    parser.add_argument("--params", type=Path, default=HERE / "params.yaml")
    parser.add_argument("--annotations", type=Path, default=HERE / "digits/train/annotations.json")
    parser.add_argument("--output", type=Path, default=HERE / "tiny-ovis2_5")
    arguments = parser.parse_args()
    config = BaseModelConfig.read(arguments.params)
    make_base_model(config, arguments.annotations, arguments.output)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
