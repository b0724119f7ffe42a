"""One tiny model for all tests of the folder; none of them changes it."""

import pytest

from ovis_model.evaluation.backends.in_process import TransformersBackend
from ovis_model.inference.engine import BatchLimit
from tests.support.tiny_model import build_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return build_tiny_checkpoint(tmp_path_factory.mktemp("backends") / "tiny")


@pytest.fixture(scope="session")
def backend(tiny):
    return TransformersBackend.load(tiny, seen_as=tiny, limit=BatchLimit(4))
