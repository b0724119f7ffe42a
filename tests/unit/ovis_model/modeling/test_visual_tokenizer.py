import pytest
import torch

from ovis_model.modeling import visual_tokenizer, visual_words
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
    embed_features(tokenizer, embedding, features, rows_per_chunk=11).sum().backward()
    assert features.grad.any()


class TestScoresThatAreKept:
    """The step that training takes on a CPU."""

    @pytest.mark.parametrize("block", [1, 5, 11], ids="blocks of {}".format)
    def test_it_gives_the_embeddings_and_gradients_of_the_plain_path(
        self, parts, block, monkeypatch
    ):
        tokenizer, embedding, features = parts
        monkeypatch.setattr(visual_words, "BLOCK_SIZE", block * tokenizer.num_words)
        with torch.no_grad():
            tokenizer.head[1].weight.normal_()
            tokenizer.head[1].bias.normal_()
        plain = embedding(tokenizer.tokenize(features))
        mixed = embed_features(tokenizer, embedding, features)
        torch.testing.assert_close(mixed, plain)
        torch.testing.assert_close(gradients(parts, mixed), gradients(parts, plain))

    def test_in_bfloat16_it_is_as_close_to_float32_as_the_plain_path(self, parts):
        tokenizer, embedding, features = parts
        exact = gradients(parts, embedding(tokenizer.tokenize(features)))
        with torch.autocast("cpu", torch.bfloat16):
            plain = gradients(parts, embedding(tokenizer.tokenize(features)))
            mixed = gradients(parts, embed_features(tokenizer, embedding, features))
        for right, theirs, ours in zip(exact, plain, mixed, strict=True):
            assert ours.dtype == right.dtype
            norm = torch.linalg.vector_norm
            assert norm(ours - right) <= 1.2 * norm(theirs - right) + 1e-3 * norm(right)

    @pytest.mark.parametrize("frozen", ["features", "head.0", "head.1", "table"])
    def test_what_is_frozen_gets_no_gradient_and_the_rest_its_own(self, parts, frozen):
        tokenizer, embedding, features = parts
        named = {
            "features": [features],
            "head.0": [tokenizer.head[0].weight],
            "head.1": list(tokenizer.head[1].parameters()),
            "table": [embedding.weight],
        }
        for tensor in named[frozen]:
            tensor.requires_grad_(False)
        learning = [one for name, all_ in named.items() if name != frozen for one in all_]
        plain = embedding(tokenizer.tokenize(features)).square().sum()
        mixed = embed_features(tokenizer, embedding, features).square().sum()
        torch.testing.assert_close(
            torch.autograd.grad(mixed, learning), torch.autograd.grad(plain, learning)
        )

    def test_it_keeps_the_scores_alone(self, parts):
        tokenizer, embedding, features = parts
        mixed = embed_features(tokenizer, embedding, features)
        own = {one.data_ptr() for one in (features, embedding.weight, *tokenizer.parameters())}
        saved = [one for one in mixed.grad_fn.saved_tensors if one.data_ptr() not in own]
        assert saved == []
        assert mixed.grad_fn.scores.shape == (len(features), tokenizer.num_words)

    def test_it_is_differentiated_once(self, parts):
        mixed = embed_features(*parts).sum()
        mixed.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="visual embeddings were differentiated twice"):
            mixed.backward()

    def test_modules_are_called_where_their_weights_may_not_be_used(self, parts):
        tokenizer, embedding, _ = parts
        assert visual_words.plain_weights(tokenizer.head, embedding) is not None
        embedding.weight.ds_id = 7  # as ZeRO-3 marks what it has cut into pieces
        assert visual_words.plain_weights(tokenizer.head, embedding) is None
        del embedding.weight.ds_id
        tokenizer.head[0] = torch.nn.Sequential(tokenizer.head[0])  # as an adapter
        assert visual_words.plain_weights(tokenizer.head, embedding) is None
