"""The sample world is scripts, not a package: its folder must be on the path, as DVC has it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SAMPLE = Path(__file__).parents[3] / "data" / "sample"
sys.path.insert(0, str(SAMPLE))

import make_base_model  # noqa: E402
import make_digits  # noqa: E402

FEW_SAMPLES = {
    "seed": 3,
    "image_pixels": 32,
    "benchmark_fraction": 0.2,
    "video": {"digits": 4, "frames_per_digit": 3, "fps": 6},
    "train": {
        "single_digits": 12,
        "multi_image": 4,
        "video_files": 2,
        "video_frame_lists": 3,
        "grounding": 8,
        "text_only": 10,
        "system_prompt": 8,
        "multi_turn": 4,
    },
    "benchmarks": {
        "digits_single": 10,
        "digits_multi_image": 4,
        "digits_video": 1,
        "digits_grounding": 8,
    },
}


@pytest.fixture(scope="session")
def params_file(tmp_path_factory):
    """The real params.yaml with small counts, so that a test takes a second."""
    params = yaml.safe_load((SAMPLE / "params.yaml").read_text(encoding="utf-8"))
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(yaml.safe_dump({**params, "digits": FEW_SAMPLES}), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def digits(params_file, tmp_path_factory):
    """A small dataset with its benchmarks."""
    output = tmp_path_factory.mktemp("world") / "digits"
    make_digits.make_digits(make_digits.DigitsConfig.read(params_file), output)
    return output


@pytest.fixture(scope="session")
def base_model(params_file, digits, tmp_path_factory):
    """The tiny checkpoint, its tokenizer trained on the small dataset."""
    output = tmp_path_factory.mktemp("models") / "tiny-ovis2_5"
    config = make_base_model.BaseModelConfig.read(params_file)
    make_base_model.make_base_model(config, digits / "train" / "annotations.json", output)
    return output


@pytest.fixture(scope="session")
def run_script():
    """Run a script as DVC does, in a process whose hashes differ from ours."""

    def run(name, *arguments):
        # Set order follows the hash seed: code that leaned on it would show here.
        environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, name, *map(str, arguments)],
            cwd=SAMPLE,
            env=environment,
            check=True,
            capture_output=True,
        )

    return run
