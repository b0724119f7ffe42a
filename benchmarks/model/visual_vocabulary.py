"""C2: features of the vision tower to visual embeddings, forward only, against the plain way.

What the reference does, in our words: linear layer, LayerNorm, softmax in float32, back to the
layer's precision, four zero columns for the indicators, product with the embedding table; each
over all tokens at once.
"""

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.model.agreement import close_to_exact
from benchmarks.suite import Agreement, Trial
from benchmarks.workload import digest, generator
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.visual_tokenizer import VisualEmbedding, VisualTokenizer, embed_features
from ovis_model.tokens import INDICATOR_IDS

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
#: Tokens whose embeddings are also computed in float64.
TOKENS_COMPARED = 16
#: Visual words whose weights are turned into float64 at a time: all would take gigabytes.
SLICE_WORDS = 4096


def build(
    seed: int, *, tokens: int, widths: tuple[int, int], vocab: int, dtype: torch.dtype
) -> Trial:
    """Make the trial for so many visual tokens.

    Args:
        seed: Of weights and features.
        tokens: Visual tokens.
        widths: Of the vision tower, a token having four times as many features, and of the
            language model.
        vocab: Visual words, indicators included.
        dtype: Precision of weights and features.
    """
    random = generator(seed)
    vit_hidden, hidden = widths
    tokenizer, embedding = _parts(random, vit_hidden, hidden, vocab, dtype)
    features = torch.randn(tokens, 4 * vit_hidden, generator=random).to(dtype)
    return Trial(
        variants={
            "Linear, LayerNorm, softmax, cat, matmul": partial(
                all_at_once, tokenizer, embedding, features
            ),
            "ours": partial(ours, tokenizer, embedding, features),
        },
        compare=partial(_compare, tokenizer, embedding, features),
        sha256=digest(features, _head(tokenizer)[0].weight, embedding.weight),
        result_bytes=tokens * hidden * dtype.itemsize,
    )


@torch.no_grad()
def all_at_once(
    tokenizer: VisualTokenizer, embedding: VisualEmbedding, features: Tensor
) -> Tensor:
    """Return embeddings [tokens, hidden] the way the reference makes them."""
    scores = tokenizer.head(features)
    words = torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
    words = torch.cat([words, words.new_zeros(len(words), len(INDICATOR_IDS))], dim=-1)
    return words @ embedding.weight


@torch.no_grad()
def ours(tokenizer: VisualTokenizer, embedding: VisualEmbedding, features: Tensor) -> Tensor:
    """Return embeddings [tokens, hidden] as the model makes them."""
    return embed_features(tokenizer, embedding, features)


@torch.no_grad()
def _compare(
    tokenizer: VisualTokenizer,
    embedding: VisualEmbedding,
    features: Tensor,
    expected: Tensor,
    found: Tensor,
) -> Agreement:
    tolerance = TOLERANCE[features.dtype]
    exact = _exact(tokenizer, embedding, features[-TOKENS_COMPARED:])
    close = close_to_exact([exact], [found[-TOKENS_COMPARED:]], tolerance=tolerance)
    if not close.equal or torch.equal(expected, found):
        return close
    # The other tokens: float64 would take minutes, the base was just found to be right.
    return close_to_exact([expected.double()], [found], tolerance=tolerance)


def _exact(tokenizer: VisualTokenizer, embedding: VisualEmbedding, features: Tensor) -> Tensor:
    linear, norm = _head(tokenizer)
    scores = torch.cat(
        [features.double() @ part.double().T for part in torch.split(linear.weight, SLICE_WORDS)],
        dim=1,
    )
    scores = nn.functional.layer_norm(
        scores, scores.shape[1:], norm.weight.double(), norm.bias.double(), norm.eps
    )
    words = scores.softmax(dim=1)
    table = embedding.weight[: words.shape[1]]
    mixed = torch.zeros(len(words), table.shape[1], dtype=torch.float64)
    for some, part in zip(
        torch.split(words, SLICE_WORDS, dim=1), torch.split(table, SLICE_WORDS), strict=True
    ):
        mixed += some @ part.double()
    return mixed


def _head(tokenizer: VisualTokenizer) -> tuple[nn.Linear, nn.LayerNorm]:
    linear, norm = tokenizer.head
    assert isinstance(linear, nn.Linear)
    assert isinstance(norm, nn.LayerNorm)
    return linear, norm


def _parts(
    random: torch.Generator, vit_hidden: int, hidden: int, vocab: int, dtype: torch.dtype
) -> tuple[VisualTokenizer, VisualEmbedding]:
    config = Ovis2_5Config(
        llm_config={"model_type": "qwen3", "hidden_size": hidden},
        vit_config={"hidden_size": vit_hidden, "num_hidden_layers": 0, "num_attention_heads": 2},
        visual_vocab_size=vocab,
    )
    with torch.device("meta"):
        tokenizer, embedding = VisualTokenizer(config), VisualEmbedding(vocab, hidden)
    for part in (tokenizer, embedding):
        part.to(dtype).to_empty(device="cpu").requires_grad_(False)
    linear, norm = _head(tokenizer)
    # Uniform, with the spread of nn.Linear's own weights; the words then differ as in a
    # trained head, whose probabilities are neither flat nor one word each.
    linear.weight.uniform_(-1.0, 1.0, generator=random)
    norm.weight.uniform_(1.0, 3.0, generator=random)
    norm.bias.uniform_(-1.0, 1.0, generator=random)
    embedding.weight.uniform_(-1.0, 1.0, generator=random)
    return tokenizer, embedding
