"""A registered version is made once more from what is on record of it, and is the same."""

import json


def reproduce(tree, *arguments):
    return tree.run("python", "-m", "tasks.cli", "reproduce", *arguments, check=False)


def test_the_first_version_is_reproduced_to_the_bit_in_a_tree_of_its_own(settled_tree):
    tree = settled_tree
    before = tree.run("git", "status", "--porcelain").stdout
    elsewhere = tree.path.parent / "once-more"
    try:
        done = reproduce(tree, "1", "--into", str(elsewhere))
        assert done.returncode == 0, done.stdout
        # It was trained, not taken from a cache.
        assert "Running stage 'train'" in done.stdout
        assert "train: step 6/6" in done.stdout
        assert "  model.safetensors                       identical\n" in done.stdout
        assert "identical: model digest " in done.stdout
        report = json.loads((tree.path / "reports/reproduce.json").read_text(encoding="utf-8"))
        assert report["identical"] is True
        # The changes that were not committed when it was trained are in the tree of then.
        assert report["changes"]
        assert tree.run("git", "rev-parse", "HEAD").stdout.strip() != report["commit"]
        params = (elsewhere / "params.yaml").read_text(encoding="utf-8")
        assert "weight_decay: 0.01" in params
        assert report["registered_digest"] == report["reproduced_digest"]
        assert all(file["identical"] for file in report["files"].values())
        assert {"model.safetensors", "config.json", "train_config.json"} <= report["files"].keys()
        model = elsewhere / "models/finetuned/model.safetensors"
        assert model.read_bytes() == (tree.path / "models/finetuned" / model.name).read_bytes()
        assert (elsewhere / ".mlflow/mlflow.db").is_file()  # its runs are not mixed with ours
        again = reproduce(tree, "1", "--into", str(elsewhere))
        assert again.returncode == 2
        assert f"{elsewhere} is there already; delete it (`rm -r {elsewhere}`)" in again.stdout
    finally:
        (tree.path / "reports/reproduce.json").unlink(missing_ok=True)
    assert tree.run("git", "status", "--porcelain").stdout == before
