"""torch's own linear function, whatever DeepSpeed has put in its place.

ZeRO-3 replaces it for the rest of the process by one that keeps and computes more; what a test
counts exactly must not depend on which tests ran before.
"""

import pytest
import torch


@pytest.fixture
def plain_linear(monkeypatch):
    """Put the original back while a test runs."""
    monkeypatch.setattr(torch.nn.functional, "linear", torch._C._nn.linear)
