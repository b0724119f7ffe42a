"""The DVC remote on an S3 server: what one machine pushed, another one pulls and need not run.

Another machine is a fresh clone.  What came or lies there damaged is found before it is used.
"""

import json
import shutil

import pytest

from ovis_model.errors import CheckpointError
from ovis_model.model_folder import verify_model_folder
from tests.support.stores import BUCKET, s3_server
from tests.support.working_tree import WorkingTree

MODEL = "models/finetuned"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def bucket(first_run, tmp_path_factory):
    """The remote, to which the first run was pushed."""
    with s3_server(tmp_path_factory.mktemp("s3")) as bucket, pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)  # DVC takes the login from there
        patch.delenv("AWS_ENDPOINT_URL")  # and the address from its own configuration
        first_run.tree.run("git", "checkout", "--quiet", "--force", "main")
        use_remote(first_run.tree, bucket)
        first_run.tree.run("dvc", "push")
        yield bucket
        (first_run.tree.path / ".dvc/config.local").unlink()


def use_remote(tree, bucket, *settings):
    """Say where the remote is, as docs/scale-out.md does."""
    tree.run("dvc", "remote", "add", "--local", "--default", "store", f"s3://{BUCKET}/dvc")
    for name, value in (("endpointurl", bucket.endpoint), *settings):
        tree.run("dvc", "remote", "modify", "--local", "store", name, value)


@pytest.fixture
def clone(first_run, bucket, tmp_path):
    """Another machine, whose remote does what it is told."""

    def make(*settings):
        tree = WorkingTree(tmp_path / "other")
        first_run.tree.run("git", "clone", "--quiet", str(first_run.tree.path), str(tree.path))
        use_remote(tree, bucket, *settings)
        return tree

    return make


def object_of(bucket, tree, name):
    """Return the key of a file of the model in the bucket."""
    lock = (tree.path / "dvc.lock").read_text(encoding="utf-8")
    folder = lock.split(f"path: {MODEL}\n")[1].split("md5: ")[1].split(".dir")[0]
    (listing,) = bucket.keys(f"{folder[2:]}.dir")
    (md5,) = (one["md5"] for one in json.loads(bucket.read(listing)) if one["relpath"] == name)
    (key,) = bucket.keys(f"{md5[:2]}/{md5[2:]}")
    return key


def flip(data):
    """Change the last bit."""
    return data[:-1] + bytes([data[-1] ^ 1])


def test_a_fresh_clone_pulls_what_was_pushed_and_has_nothing_to_run(clone):
    tree = clone()
    assert not (tree.path / MODEL).exists()
    tree.run("dvc", "pull")
    verify_model_folder(tree.path / MODEL)
    assert "Running stage" not in tree.run("dvc", "repro", "evaluate").stdout
    assert not tree.run("git", "status", "--porcelain").stdout


@pytest.fixture
def damaged(bucket, first_run):
    """The weights in the bucket have a flipped bit; yields their key and what they were."""
    key = object_of(bucket, first_run.tree, WEIGHTS)
    whole = bucket.read(key)
    bucket.write(key, flip(whole))
    yield key, whole
    bucket.write(key, whole)


def test_a_remote_that_verifies_does_not_hand_out_a_damaged_object(
    clone, damaged, bucket, first_run
):
    tree = clone(("verify", "true"))
    pulled = tree.run("dvc", "pull", MODEL, check=False)
    assert pulled.returncode != 0
    assert f"Checkout failed for following targets:\n{MODEL}" in pulled.stdout
    assert not (tree.path / MODEL / WEIGHTS).exists()

    # A push looks for names only; the object has to be put back by hand.
    assert "Everything is up to date" in first_run.tree.run("dvc", "push", MODEL).stdout
    key, _ = damaged
    good = first_run.tree.path / ".dvc/cache" / key.removeprefix("dvc/")
    bucket.write(key, good.read_bytes())
    tree.run("dvc", "pull", MODEL)
    verify_model_folder(tree.path / MODEL)


def test_a_damaged_object_that_dvc_believes_is_found_by_the_manifest(clone, damaged, bucket):
    tree = clone()
    tree.run("dvc", "pull", MODEL)
    with pytest.raises(CheckpointError, match="changed: " + WEIGHTS):
        verify_model_folder(tree.path / MODEL)

    # Now the cache is damaged, too: it has to forget the object.
    key, whole = damaged
    bucket.write(key, whole)
    (tree.path / ".dvc/cache" / key.removeprefix("dvc/")).unlink()
    shutil.rmtree(tree.path / MODEL)
    tree.run("dvc", "pull", MODEL)
    verify_model_folder(tree.path / MODEL)
