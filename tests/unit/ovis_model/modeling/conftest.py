import json
import shutil

import pytest

from ovis_model.modeling.checkpoint import load_model
from ovis_model.modeling.weight_files import SINGLE_FILE
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from tests.support.tiny_model import build_tiny_checkpoint

REMOTE_CODE = ("configuration_ovis2_5.py", "modeling_ovis2_5.py")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A folder as we save it."""
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def model(checkpoint):
    return load_model(checkpoint)


@pytest.fixture(scope="session")
def processor(checkpoint):
    return Ovis2_5Processor.from_pretrained(checkpoint)


@pytest.fixture(scope="session")
def official(checkpoint, tmp_path_factory):
    """The same model as others publish it: shards of transformers, remote code, a README."""
    folder = tmp_path_factory.mktemp("official") / "Ovis2.5-0.1M"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    load_model(checkpoint).save_pretrained(str(folder), max_shard_size="100KB")
    assert not (folder / SINGLE_FILE).exists()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {
        "AutoConfig": "configuration_ovis2_5.Ovis2_5_Config",
        "AutoModelForCausalLM": "modeling_ovis2_5.Ovis2_5",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in REMOTE_CODE:
        (folder / name).write_text("raise SystemExit('remote code ran')\n", encoding="utf-8")
    generation = {"eos_token_id": [1, 2], "repetition_penalty": 1.05}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    (folder / "README.md").write_text("A model card.\n", encoding="utf-8")
    (folder / "LICENSE").write_text("Apache-2.0\n", encoding="utf-8")
    (folder / "training_args.bin").write_bytes(b"no pickle is ever read")
    return folder
