from importlib.metadata import version

from tasks._locked_packages import MISSING, other_versions


def test_packages_of_another_version_or_missing_are_named_and_builds_are_equal(tmp_path):
    lock = tmp_path / "requirements.lock"
    torch = version("torch").partition("+")[0]
    lock.write_text(
        "# a comment\n"
        f"torch=={torch}\n"
        "pydantic==0.1 # as of old\n"
        "no-such-package==1.0 ; python_version < '4'\n"
        "not a pin\n"
    )
    assert other_versions(lock) == {
        "pydantic": ("0.1", version("pydantic")),
        "no-such-package": ("1.0", MISSING),
    }
