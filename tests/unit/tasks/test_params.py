"""params.yaml is read strictly: what it cannot mean is an error that names the place."""

from pathlib import Path

import pytest
import yaml

from ovis_model.config import ValidateConfig
from ovis_model.errors import ConfigError
from tasks import STEPS
from tasks.params import Params, read_yaml

ROOT_PARAMS = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture
def params_file(tmp_path):
    def write(**changes):
        """Write the shipped params with some keys ('section.key') changed, or gone if None."""
        values = yaml.safe_load(ROOT_PARAMS.read_text(encoding="utf-8"))
        for place, value in changes.items():
            *sections, key = place.split(".")
            target = values
            for section in sections:
                target = target[section]
            if value is None:
                del target[key]
            else:
                target[key] = value
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write


def write(tmp_path, text):
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_file_is_read_and_has_one_section_per_step():
    params = Params.read(ROOT_PARAMS)
    assert params.validation.raw_data == "data/sample/digits/train"
    assert params.register_.gate.min_score["digits_single"] > 0
    assert tuple(yaml.safe_load(ROOT_PARAMS.read_text(encoding="utf-8"))) == STEPS


def test_params_cannot_be_changed_after_reading():
    with pytest.raises(ValueError, match="frozen"):
        Params.read(ROOT_PARAMS).train.seed = 1


def test_an_unknown_section_is_answered_with_the_nearest_one(params_file):
    with pytest.raises(ConfigError, match=r"unknown key 'trian'; did you mean 'train'\?"):
        Params.read(params_file(trian={}))


def test_an_unknown_key_is_answered_with_the_nearest_one(params_file):
    path = params_file(**{"extract.max_frame": 4})
    with pytest.raises(
        ConfigError, match=r"extract: unknown key 'max_frame'; did you mean 'max_f"
    ):
        Params.read(path)


def test_a_missing_section_is_named(params_file):
    with pytest.raises(ConfigError, match=r"missing section\(s\): evaluate"):
        Params.read(params_file(evaluate=None))


def test_a_section_without_keys_is_an_error(params_file):
    with pytest.raises(ConfigError, match="section 'extract' must hold keys, it holds 7"):
        Params.read(params_file(extract=7))


def test_a_value_out_of_range_names_section_key_and_value(params_file):
    path = params_file(**{"validate.holdout_fraction": 1.5})
    with pytest.raises(ConfigError, match=r"validate: holdout_fraction: .*less than 1.*got 1\.5"):
        Params.read(path)


def test_a_key_written_twice_names_the_line(tmp_path):
    path = write(tmp_path, "train:\n  seed: 1\n  lr: 2\n  seed: 3\n")
    with pytest.raises(ConfigError, match="line 4: key 'seed' is written twice"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "1E-4", "+1.e-4", ".1e-3", "100e-6"])
def test_a_number_with_an_exponent_is_a_number_with_or_without_a_point(tmp_path, text):
    assert read_yaml(write(tmp_path, f"lr: {text}\n")) == {"lr": pytest.approx(1e-4)}


def test_a_quoted_number_names_the_line_and_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match="line 2: '1e-4' is text, not a number; remove the quo"):
        read_yaml(write(tmp_path, "a: 1\nlr: '1e-4'\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: [1", "is not valid YAML", id="no YAML"),
        pytest.param("- a\n- b\n", "keys at the top level are expected", id="a list"),
        pytest.param("", "keys at the top level are expected", id="an empty file"),
    ],
)
def test_a_file_that_holds_no_sections_is_an_error(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_yaml(write(tmp_path, text))


def test_a_missing_file_says_where_to_stand(tmp_path):
    with pytest.raises(ConfigError, match="missing; run from the repository root"):
        read_yaml(tmp_path / "params.yaml")


def test_aliases_and_merged_keys_still_work(tmp_path):
    path = write(tmp_path, "base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\n")
    assert read_yaml(path)["other"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"limits": {"max_pixel": 3}},
            r"limits: unknown key 'max_pixel'; did you mean 'max_pixels'",
        ),
        (
            {"sources": [{"name": "a", "annotations": "a.json", "wieght": 2}]},
            r"sources\.0: unknown key 'wieght'; did you mean 'weight'",
        ),
        (
            {"sources": [{"name": "a", "annotations": n} for n in ("a.json", "b.json")]},
            r"more than one is named a; .* give each its own",
        ),
    ],
    ids=["a key of the limits", "a key of a source", "two sources of one name"],
)
def test_what_is_wrong_inside_a_section_is_named_with_its_place(section, message):
    with pytest.raises(ConfigError, match=message):
        ValidateConfig.parse({"raw_data": "raw", **section}, where="params.yaml: validate")


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("data_path", "a.json", "validate.raw_data"),
        ("max_frames", 4, "extract.max_frames"),
        ("overwrite_output_dir", True, "models/finetuned is always replaced"),
    ],
)
def test_a_key_that_only_counts_outside_the_pipeline_is_refused(params_file, key, value, instead):
    with pytest.raises(ConfigError) as caught:
        Params.read(params_file(**{f"train.{key}": value}))
    assert "train: these keys are for a training outside the pipeline; in brackets" in str(
        caught.value
    )
    assert f"{key} (" in str(caught.value)
    assert instead in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.hub_token", "anything at all"),
        ("validate.raw_data", "s3://me:pa55word@bucket/raw"),
        ("train.stages", [{"ovis_pretrained_path": f"hf_{34 * 'a'}"}]),
    ],
)
def test_a_secret_is_refused_without_repeating_it(params_file, key, value):
    with pytest.raises(ConfigError, match=rf"{key}\S* holds a password or a key") as caught:
        Params.read(params_file(**{key: value}))
    assert "pa55word" not in str(caught.value)
    assert "hf_" not in str(caught.value)
