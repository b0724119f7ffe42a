"""The Ovis2.5 network: vision tower, visual vocabulary and language model.

After `import ovis_model.modeling`, transformers' Auto classes know the model.
"""

from collections.abc import Iterator
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config


class _ModelClasses(tuple[str, ...]):
    """The model's class, imported when somebody asks for it.

    The Auto classes take a tuple of classes where they take a class.  A tokenizer or a processor
    needs no network, and its import takes seconds.
    """

    def __iter__(self) -> Iterator[Any]:
        # Imported here because that is what this class is for.
        from ovis_model.modeling.modeling_ovis2_5 import (  # noqa: PLC0415
            Ovis2_5ForConditionalGeneration,
        )

        yield Ovis2_5ForConditionalGeneration

    def __getitem__(self, index: Any) -> Any:
        return tuple(self)[index]


# exist_ok: a future transformers may bring an `ovis2_5` of its own, for weights of other names.
AutoConfig.register(Ovis2_5Config.model_type, Ovis2_5Config, exist_ok=True)
for _auto_class in (AutoModelForCausalLM, AutoModelForImageTextToText):
    _auto_class.register(
        Ovis2_5Config, _ModelClasses(("Ovis2_5ForConditionalGeneration",)), exist_ok=True
    )
