"""What the pipeline leaves behind has none of the secrets of the environment it ran in."""

from tests.support.working_tree import SECRETS


def test_no_file_and_no_output_of_the_pipeline_has_a_secret(first_run, settled_tree):
    secrets = [value.encode() for value in SECRETS.values()]
    assert not [
        one for one in secrets if one in (first_run.output + first_run.second_output).encode()
    ]
    files = [
        path for path in settled_tree.path.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    # The tracker's store is among them: parameters, tags and the copies of reports.
    assert settled_tree.path / ".mlflow/mlflow.db" in files
    told = [
        path
        for path in files
        # Test code and its bytecode: where the secrets are planted.
        if "support" not in path.parts and any(one in path.read_bytes() for one in secrets)
    ]
    assert told == []
