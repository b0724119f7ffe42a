import pytest

from ovis_model.errors import ConfigError
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config


def test_other_language_models_are_refused_with_a_reason():
    with pytest.raises(ConfigError, match=r"'gpt2'.*only 'qwen3'"):
        Ovis2_5Config(llm_config={"model_type": "gpt2"})
