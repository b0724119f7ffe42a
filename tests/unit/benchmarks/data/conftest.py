"""Generated files go to a folder of these tests', and are made once."""

import tempfile

import pytest


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    return tmp_path_factory.mktemp("generated")


@pytest.fixture(autouse=True)
def _own_folder_for_generated_files(generated, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(generated))  # of processes that are started
    monkeypatch.setattr(tempfile, "tempdir", str(generated))  # of this one
