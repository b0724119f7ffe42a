"""Generated folders go where the test run's other files go."""

import tempfile

import pytest


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    return tmp_path_factory.mktemp("generated")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(generated):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(generated))
        yield
