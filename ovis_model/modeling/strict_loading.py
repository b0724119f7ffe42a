"""Loading that accepts what fits and nothing else.

transformers fills a missing tensor with random numbers, drops one it does not know, and keeps a
NaN; it warns at most.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ovis_model.errors import CheckpointError, list_examples
from ovis_model.modeling.weight_files import StoredTensor, find_tensors

#: Not stored where the embeddings are tied, as in the released 2B.
TIED_HEAD = "llm.lm_head.weight"
EMBEDDINGS = "llm.model.embed_tokens.weight"
UNTIED = (
    f"differs from {EMBEDDINGS}, but the config says tie_word_embeddings; say false there (in "
    "llm_config, too) to keep both, or drop one of them"
)


class StrictLoading:
    """Gives a model a `from_pretrained` that refuses what does not fit."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *args: Any,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a model as transformers does, and check that it is whole.

        Args:
            pretrained_model_name_or_path: A checkpoint folder, or a name on the Hub.
            *args: For transformers.
            ignore_mismatched_sizes: Do not check: what does not fit is made anew.
            output_loading_info: Return what transformers says about the loading, too.
            **kwargs: For transformers.

        Raises:
            CheckpointError: If a file is missing or damaged, or a tensor is missing, unexpected,
                misshapen or not finite; it names tensors and files.
        """
        folder = Path(str(pretrained_model_name_or_path))
        strict = not ignore_mismatched_sizes
        stored = find_tensors(folder) if strict and folder.is_dir() else {}
        try:
            load: Any = super()
            model, info = load.from_pretrained(
                pretrained_model_name_or_path,
                *args,
                ignore_mismatched_sizes=True,  # reported below, all of them at once
                output_loading_info=True,
                **kwargs,
            )
        except SafetensorError as error:
            raise CheckpointError(
                f"{folder}: a weights file is damaged or cut off ({error}); restore it from its "
                "source"
            ) from error
        if strict:
            check_loaded(model, info, folder, stored)
        return (model, info) if output_loading_info else model


def check_loaded(
    model: Any, info: Mapping[str, Any], folder: Path, stored: Mapping[str, StoredTensor]
) -> None:
    """Refuse a model that is not exactly what its checkpoint says.

    Args:
        model: As transformers has loaded it.
        info: What transformers found while loading.
        folder: Where it came from, for messages.
        stored: The tensors in the folder's files.

    Raises:
        CheckpointError: Naming tensors and files.
    """
    findings = [
        f"{kind.replace('_', ' ')}: {_describe(found, stored)}"
        for kind, found in info.items()
        if found
    ]
    if findings:
        raise CheckpointError(
            f"{folder} does not fit its config.json; {'; '.join(findings)}. Use a complete "
            "Ovis2.5 checkpoint, or restore the folder from its source"
        )
    if bad := not_finite(model.named_parameters()):
        raise CheckpointError(
            f"{folder}: NaN or infinite values in {list_examples(_places(bad, stored))}. Restore "
            "the folder from its source, or train again from a sound checkpoint"
        )
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if model.config.tie_word_embeddings and head.weight is not embeddings.weight:
        # transformers would only warn, and the head would be lost with the next save.
        raise CheckpointError(f"{folder}: {_places([TIED_HEAD], stored)[0]} {UNTIED}")


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Name the tensors that hold a NaN or an infinite value."""
    bad = []
    for name, tensor in tensors:
        # Under ZeRO-3 each process has a part of the tensor, and looks at its own.
        here = getattr(tensor, "ds_tensor", tensor).detach()
        # The extremes of a tensor that holds a NaN are NaN; isfinite would cost a copy.
        if here.numel() and not torch.isfinite(torch.stack(torch.aminmax(here))).all():
            bad.append(name)
    return bad


def _describe(found: Iterable[Any], stored: Mapping[str, StoredTensor]) -> str:
    """Name tensors and their files; of misshapen ones transformers gives both shapes, too."""
    lines = []
    for item in found:
        name, *shapes = item if isinstance(item, tuple) else (item,)
        line = _places([str(name)], stored)[0]
        if len(shapes) == 2:
            line += f" is {list(shapes[0])} instead of {list(shapes[1])}"
        lines.append(line)
    return list_examples(sorted(lines))


def _places(names: Iterable[str], stored: Mapping[str, StoredTensor]) -> list[str]:
    return [stored[name].place if name in stored else name for name in names]
