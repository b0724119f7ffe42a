import pytest
import torch

from ovis_model.errors import ConfigError
from ovis_model.modeling.attention import (
    Segments,
    attend,
    check_implementation,
    check_packed_row,
    describe_attention,
    pick_implementation,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def reference(query, key, value, lengths, *, causal):
    """One block-diagonal mask over everything, in float64."""
    query, key, value = (x.double().transpose(0, 1) for x in (query, key, value))
    repeats = len(query) // len(key)
    key, value = key.repeat_interleave(repeats, 0), value.repeat_interleave(repeats, 0)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    allowed = owner[:, None] == owner
    if causal:
        allowed = allowed.tril()
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    return (weights @ value).transpose(0, 1).float()


@pytest.mark.parametrize("lengths", [[5], [4, 4], [3, 1, 4, 1, 3]], ids=["one", "equal", "ragged"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("implementation", ["auto", "sdpa", "eager"])
def test_every_segment_sees_itself_alone(lengths, causal, implementation):
    torch.manual_seed(0)
    query = torch.randn(sum(lengths), 4, 8)
    key, value = torch.randn(2, sum(lengths), 2, 8)
    segments = Segments.of(lengths, CPU, implementation)
    attended = attend(query, key, value, segments, causal=causal)
    expected = reference(query, key, value, lengths, causal=causal)
    torch.testing.assert_close(attended, expected, atol=1e-6, rtol=1e-5)


def test_segments_know_their_bounds_and_positions():
    segments = Segments.of([3, 1, 2], CPU)
    assert segments.bounds.tolist() == [0, 3, 4, 6]
    assert segments.bounds.dtype == torch.int32
    assert segments.longest == 3
    assert segments.positions().tolist() == [[0, 1, 2, 0, 0, 1]]


@pytest.mark.parametrize(
    ("device", "dtype", "installed", "picked"),
    [
        pytest.param(CPU, torch.bfloat16, True, "sdpa", id="cpu"),
        pytest.param(CUDA, torch.float32, True, "sdpa", id="gpu in 32 bits"),
        pytest.param(CUDA, torch.bfloat16, True, "flash_attention_2", id="gpu with flash-attn"),
        pytest.param(CUDA, torch.bfloat16, False, "varlen", id="gpu without"),
    ],
)
def test_auto_takes_the_first_that_works(monkeypatch, device, dtype, installed, picked):
    monkeypatch.setattr("ovis_model.modeling.attention._has_flash_attn", lambda: installed)
    assert pick_implementation("auto", device, dtype) == picked
    assert pick_implementation("eager", device, dtype) == "eager"


def test_what_runs_is_said_for_both_parts():
    assert describe_attention("auto", CPU, torch.float32) == {
        "vit": "sdpa per frame",
        "llm": "sdpa per sequence for packed rows, sdpa for padded batches",
    }
    assert describe_attention("varlen", CUDA, torch.bfloat16) == {
        "vit": "varlen",
        "llm": "varlen for packed rows, sdpa for padded batches",
    }


def test_an_implementation_that_is_not_there_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"'flash'; use one of auto, flash_attention_2, "):
        check_implementation("flash")
    monkeypatch.setattr("ovis_model.modeling.attention._has_flash_attn", lambda: False)
    with pytest.raises(ConfigError, match=r"flash-attn package is not installed.*say 'auto'"):
        check_implementation("flash_attention_2")


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        pytest.param(1, [2, 2], id="too short"),
        pytest.param(1, [5, 0], id="an empty sample"),
        pytest.param(2, [5], id="two rows"),
        pytest.param(1, [], id="no sample"),
    ],
)
def test_lengths_that_do_not_describe_the_row_are_refused(rows, lengths):
    with pytest.raises(ValueError, match=r"must add up to the 5 positions of a single row"):
        check_packed_row(torch.zeros(rows, 5, 4), None, lengths, "auto")


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("head_dim", [72, 128])
def test_varlen_attention_on_a_gpu_agrees(causal, head_dim):
    torch.manual_seed(0)
    lengths = [33, 7, 64]
    query = torch.randn(sum(lengths), 4, head_dim)
    key, value = torch.randn(2, sum(lengths), 2, head_dim)
    segments = Segments.of(lengths, CUDA, "varlen")
    on_gpu = (x.to(CUDA, torch.bfloat16) for x in (query, key, value))
    attended = attend(*on_gpu, segments, causal=causal).float().cpu()
    expected = reference(query, key, value, lengths, causal=causal)
    torch.testing.assert_close(attended, expected, atol=2e-2, rtol=2e-2)
