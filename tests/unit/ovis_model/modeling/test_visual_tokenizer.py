import pytest
import torch

from ovis_model.modeling import visual_tokenizer
from ovis_model.modeling.visual_tokenizer import embed_features
from tests.support.tiny_model import build_tokenizer, tiny_config


@pytest.fixture
def parts():
    torch.manual_seed(0)
    config = tiny_config(build_tokenizer())
    tokenizer = visual_tokenizer.VisualTokenizer(config)
    embedding = visual_tokenizer.VisualEmbedding(config.visual_vocab_size, config.llm.hidden_size)
    features = torch.randn(11, 4 * config.vit.hidden_size, requires_grad=True)
    return tokenizer, embedding, features


def gradients(parts, embedded):
    tokenizer, embedding, features = parts
    trained = (features, embedding.weight, *tokenizer.head.parameters())
    return torch.autograd.grad(embedded.square().sum(), trained)


@pytest.mark.parametrize("rows", [1, 4, 11], ids=["single rows", "uneven chunks", "one chunk"])
def test_chunks_give_the_embeddings_and_gradients_of_the_plain_path(parts, rows):
    tokenizer, embedding, features = parts
    plain = embedding(tokenizer.tokenize(features))
    chunked = embed_features(tokenizer, embedding, features, rows_per_chunk=rows)
    torch.testing.assert_close(chunked, plain)
    torch.testing.assert_close(gradients(parts, chunked), gradients(parts, plain))
    with torch.no_grad():
        unlearned = embed_features(tokenizer, embedding, features, rows_per_chunk=rows)
    torch.testing.assert_close(unlearned, plain)


@pytest.mark.parametrize("learning", [True, False], ids=["with gradients", "without"])
def test_probabilities_of_all_tokens_never_exist_nor_are_they_kept(parts, learning):
    tokenizer, embedding, features = parts
    width = tokenizer.num_words
    kept, largest = [], 0
    softmax = torch.softmax

    def measured(scores, **arguments):
        nonlocal largest
        largest = max(largest, len(scores))
        return softmax(scores, **arguments)

    def keep(tensor):
        if tensor.shape[-1:] == (width,) and tensor.dim() == 2 and len(tensor) > 1:
            kept.append(tensor.shape)
        return tensor

    with (
        pytest.MonkeyPatch.context() as patch,
        torch.set_grad_enabled(learning),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        patch.setattr(torch, "softmax", measured)
        embed_features(tokenizer, embedding, features, rows_per_chunk=4)
    assert largest == 4
    assert kept == []


def test_few_tokens_are_done_the_plain_way(parts, monkeypatch):
    tokenizer, embedding, features = parts
    monkeypatch.setattr(visual_tokenizer, "checkpoint", None)  # would fail if it were called
    embed_features(tokenizer, embedding, features).sum().backward()
    assert features.grad.any()
