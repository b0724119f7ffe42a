"""What transformers' Auto classes give, also where transformers has an `ovis2_5` of its own."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import ovis_model.modeling
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration

ROOT = Path(__file__).parents[4]
AUTO_MODELS = (AutoModelForCausalLM, AutoModelForImageTextToText)


@pytest.fixture
def registries(monkeypatch):
    """Put back afterwards what a test registers."""
    for registry in (CONFIG_MAPPING, *(auto._model_mapping for auto in AUTO_MODELS)):
        monkeypatch.setattr(registry, "_extra_content", dict(registry._extra_content))


def native_classes(config_name, model_name):
    config = type(config_name, (PreTrainedConfig,), {"model_type": "ovis2_5"})
    model = type(model_name, (PreTrainedModel,), {"config_class": config})
    return config, model


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("Ovis2_5Config", "Ovis2_5ForConditionalGeneration"), id="same names"),
        pytest.param(("Ovis25Config", "Ovis25ForCausalLM"), id="other names"),
    ],
)
def test_what_others_registered_before_gives_way(official, registries, names):
    config, model = native_classes(*names)
    AutoConfig.register("ovis2_5", config, exist_ok=True)
    for auto_class in AUTO_MODELS:
        auto_class.register(config, model, exist_ok=True)
    assert type(AutoConfig.from_pretrained(str(official), trust_remote_code=False)) is config

    importlib.reload(ovis_model.modeling)
    assert type(AutoConfig.from_pretrained(str(official))) is Ovis2_5Config
    for auto_class in AUTO_MODELS:
        found = auto_class.from_pretrained(str(official))
        assert type(found) is Ovis2_5ForConditionalGeneration


def test_another_model_for_our_configuration_gives_way(official, registries):
    _, model = native_classes("Ovis2_5Config", "Ovis2_5ForConditionalGeneration")
    model.config_class = Ovis2_5Config
    AutoModelForCausalLM.register(Ovis2_5Config, model, exist_ok=True)
    importlib.reload(ovis_model.modeling)
    found = AutoModelForCausalLM.from_pretrained(str(official))
    assert type(found) is Ovis2_5ForConditionalGeneration


@pytest.mark.parametrize("trust", [None, False, True], ids=str)
def test_remote_code_never_runs_and_nobody_is_asked(official, trust):
    found = AutoModelForCausalLM.from_pretrained(str(official), trust_remote_code=trust)
    assert type(found) is Ovis2_5ForConditionalGeneration
    made = AutoModelForCausalLM.from_config(found.config, trust_remote_code=trust)
    assert type(made) is Ovis2_5ForConditionalGeneration
    AutoProcessor.from_pretrained(str(official), trust_remote_code=False)


# In a process of its own, for what a release of transformers contains is in tables that are read
# at import; without network, and without a terminal to ask a question on.
NATIVE_RELEASE = """
import sys, types

def refuse(event, arguments):
    assert event not in ("socket.connect", "socket.getaddrinfo"), arguments

sys.addaudithook(refuse)
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

class Ovis2_5Config(PreTrainedConfig):
    model_type = "ovis2_5"

class Ovis2_5ForConditionalGeneration(PreTrainedModel):
    config_class = Ovis2_5Config

module = types.ModuleType("transformers.models.ovis2_5")
for native in (Ovis2_5Config, Ovis2_5ForConditionalGeneration):
    native.__module__ = module.__name__
    setattr(module, native.__name__, native)
sys.modules[module.__name__] = module
CONFIG_MAPPING_NAMES["ovis2_5"] = "Ovis2_5Config"
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["ovis2_5"] = "Ovis2_5ForConditionalGeneration"
AutoModelForCausalLM._model_mapping._reverse_config_mapping["Ovis2_5Config"] = "ovis2_5"
assert type(AutoConfig.from_pretrained(FOLDER, trust_remote_code=False)) is Ovis2_5Config
assert AutoModelForCausalLM._model_mapping[Ovis2_5Config] is Ovis2_5ForConditionalGeneration

import ovis_model.modeling.tokenizer_files
import ovis_model.processing.processing_ovis2_5
assert "ovis_model.modeling.modeling_ovis2_5" not in sys.modules
assert type(AutoConfig.from_pretrained(FOLDER)).__module__.startswith("ovis_model")
found = AutoModelForCausalLM.from_pretrained(FOLDER)
assert type(found).__module__ == "ovis_model.modeling.modeling_ovis2_5"
"""


def test_a_native_model_of_a_later_release_gives_way_and_imports_stay_light(official):
    process = subprocess.run(
        [sys.executable, "-c", NATIVE_RELEASE.replace("FOLDER", repr(str(official)))],
        cwd=ROOT,
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
