"""operations.yaml is read strictly, and what is left out has its default."""

import pytest

from ovis_model.errors import ConfigError
from tasks.operations import Operations, ScheduleConfig
from tests.support.working_tree import ROOT


def write(folder, text):
    path = folder / "operations.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_of_the_project_says_the_defaults():
    assert Operations.read(ROOT / "operations.yaml") == Operations()


def test_a_section_that_is_left_out_has_its_defaults(tmp_path):
    read = Operations.read(write(tmp_path, "{}\n"))
    assert read.schedule == ScheduleConfig()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schedul: {}\n", "did you mean 'schedule'"),
        ("schedule: {cronn: '* * * * *'}\n", "did you mean 'cron'"),
        ("notify: {slak: {}}\n", "did you mean 'slack'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        Operations.read(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"operations.yaml is missing"):
        Operations.read(tmp_path / "operations.yaml")


def test_an_address_in_the_file_is_refused_without_repeating_it(tmp_path):
    text = "notify: {slack: {address: 'https://hooks.example/secret'}}\n"
    with pytest.raises(ConfigError, match="must be the name of an environment variable") as caught:
        Operations.read(write(tmp_path, text))
    assert "hooks.example" not in str(caught.value)
