"""reports/train_xray.html: which tokens are learned, and which weights move at which rate.

    write_xray(trainer, weights, base, where)      once, in the first process, after training

The rates and decays are those of the optimizer that ran, and what moved was compared with the
base model's files: neither is copied from the configuration.  The label masks are those of the
samples that were trained on.  The same training gives the same bytes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ovis_model.data.checks.label_mask import mask_of
from ovis_model.data.checks.pages import choose_samples, page_environment
from ovis_model.data.dataset import ConversationDataset
from ovis_model.data.schema import Sample
from ovis_model.modeling.weight_files import find_tensors
from ovis_model.processing.visual_tokens import count_visual_tokens
from ovis_model.reports import write_text
from ovis_model.tokens import IGNORE_ID, THINK_OPEN
from ovis_model.training.destination import Destination
from ovis_model.training.optimizer_state import running_groups
from ovis_model.training.packed_rows import PackedDataset
from ovis_model.training.train_modules import ADAPTER_MARK, REPORTED, full_shape, module_of
from ovis_model.training.trainer import OvisTrainer

#: Samples shown, as many of each kind as there is room for.
MAX_EXHIBITS = 12
#: How PEFT names the weight an adapter stands beside, and the matrix that begins at zero.
_INSIDE = ".base_layer."
_SECOND_MATRIX = f"{ADAPTER_MARK}B.default.weight"


@dataclass(frozen=True)
class ModuleRow:
    """The weights of a module that are trained alike.

    Attributes:
        module: One of `train_modules.REPORTED`, or its adapters.
        learning_rate: Peak rate in the optimizer that ran; None for frozen weights.
        weight_decay: Likewise.
        parameters: Scalars.
        tensors: Tensors.
        moved: Tensors of them that differ from the base model.
        largest_change: Of any scalar.
    """

    module: str
    learning_rate: float | None
    weight_decay: float | None
    parameters: int
    tensors: int
    moved: int
    largest_change: float

    @property
    def verdict(self) -> str:
        """Say whether what moved is what should have."""
        if self.learning_rate is None:
            return "moved though frozen" if self.moved else "frozen"
        if self.learning_rate == 0:
            return "rate 0"
        return f"{self.moved} of {self.tensors} tensors moved" if self.moved else "did not move"


def write_xray(
    trainer: OvisTrainer, weights: Mapping[str, Tensor], base: Path, where: Destination
) -> None:
    """Write the page, or the tables that the page of a later stage shows.

    Args:
        trainer: Whose training has made at least one step.
        weights: Gathered from it.
        base: Folder of the checkpoint it began with.
        where: Of its fields, those of the page; without them nothing is written.

    Raises:
        TrainingError: If a parameter that should learn is in no group of the optimizer.
    """
    if where.xray is None and where.xray_tables is None:
        return
    before = [] if where.xray_before is None else list(read_tables(where.xray_before))
    tables = [*before, (where.title, read_rows(trainer, weights, base))]
    if where.xray_tables is not None:
        write_tables(where.xray_tables, tables)
    if where.xray is not None:
        dataset = trainer.train_dataset
        samples = dataset.samples if isinstance(dataset, PackedDataset) else dataset
        assert isinstance(samples, ConversationDataset)  # what `_prepare` gives the trainer
        write_page(where.xray, tables, exhibits(samples), num_samples=len(samples))


def read_rows(trainer: OvisTrainer, weights: Mapping[str, Tensor], base: Path) -> list[ModuleRow]:
    """Read the running optimizer and compare the weights with those the training began with.

    Args:
        trainer: Whose training has made at least one step.
        weights: Gathered from it.
        base: Folder of the checkpoint it began with.

    Raises:
        TrainingError: If a parameter that should learn is in no group of the optimizer.
    """
    running = running_groups(trainer)
    changes = largest_changes(weights, base)
    found: dict[tuple[str, float | None, float | None], list[tuple[int, float]]] = {}
    for name, parameter in trainer.network.named_parameters():
        group = running.get(name)
        module = module_of(name)
        rate = None if group is None else group.peak_learning_rate
        decay = None if group is None else group.weight_decay
        size = torch.Size(full_shape(parameter)).numel()
        found.setdefault((module, rate, decay), []).append((size, changes.get(name, 0.0)))
    order = {module: place for place, module in enumerate(REPORTED)}
    return [
        ModuleRow(
            module=module,
            learning_rate=rate,
            weight_decay=decay,
            parameters=sum(size for size, _ in members),
            tensors=len(members),
            moved=sum(change > 0 for _, change in members),
            largest_change=max(change for _, change in members),
        )
        for (module, rate, decay), members in sorted(
            found.items(), key=lambda item: order.get(item[0][0], len(order))
        )
    ]


def largest_changes(weights: Mapping[str, Tensor], base: Path) -> dict[str, float]:
    """Compare weights with a checkpoint's files, one tensor at a time.

    Returns:
        The largest change of a scalar, by the weight's name; of an adapter, whose second matrix
        is zero at first, its size.  Weights that the files lack are left out.
    """
    changes = {
        name: _size(tensor) for name, tensor in weights.items() if name.endswith(_SECOND_MATRIX)
    }
    stored = find_tensors(base)
    official = {name.replace(_INSIDE, "."): name for name in weights}
    for file in sorted({tensor.file for tensor in stored.values()}):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dictionary
                if name in official:
                    ours = weights[official[name]].cpu()
                    # Rounded as the trained one is: loading in 16 bits is no change.
                    before = tensors.get_tensor(name).to(ours.dtype)
                    changes[official[name]] = _size(ours.float() - before.float())
    return changes


def _size(tensor: Tensor) -> float:
    return float(tensor.detach().float().abs().max()) if tensor.numel() else 0.0


def exhibits(dataset: ConversationDataset, *, limit: int = MAX_EXHIBITS) -> list[dict[str, Any]]:
    """Describe some samples as they were trained on, of every kind if there is room."""
    kinds = ((sample.id, _kind(sample)) for sample in dataset.samples)
    return [_exhibit(dataset, index) for index in choose_samples(kinds, limit=limit)]


def _kind(sample: Sample) -> str:
    """Name what decides about the labels; samples of one name are alike."""
    shown = "video" if sample.video is not None else f"{min(len(sample.image), 2)} images"
    roles = sorted({turn.role for turn in sample.conversations})
    thinks = any(THINK_OPEN in turn.value for turn in sample.conversations)
    return " ".join((shown, *roles, "thinking" if thinks else "", str(len(roles))))


def _exhibit(dataset: ConversationDataset, index: int) -> dict[str, Any]:
    sample, encoded = dataset.samples[index], dataset[index].encoded
    labels = encoded.labels
    assert labels is not None  # only prompts have none
    grids = [] if encoded.grid_thws is None else encoded.grid_thws.tolist()
    mask = mask_of(
        sample,
        dataset.processor.tokenizer,
        visual_tokens=[count_visual_tokens(tuple(grid)) for grid in grids],
    )
    return {
        "id": sample.id,
        "source": sample.source,
        "num_tokens": len(encoded.input_ids),
        "num_supervised": int((labels != IGNORE_ID).sum()),
        "mask": mask,
    }


def write_page(
    path: Path,
    tables: Sequence[tuple[str, Sequence[ModuleRow]]],
    shown: Sequence[Mapping[str, Any]],
    *,
    num_samples: int,
) -> None:
    """Write the page.

    Args:
        path: Of the HTML file.
        tables: One per training of a sequence, with its heading.
        shown: From `exhibits`.
        num_samples: How many there are to choose from.
    """
    page = page_environment("ovis_model.training").get_template("xray.html.j2")
    write_text(path, page.render(tables=tables, exhibits=shown, num_samples=num_samples))


def write_tables(path: Path, tables: Sequence[tuple[str, Sequence[ModuleRow]]]) -> None:
    """Keep tables for the page of a later training."""
    content = [[title, [asdict(row) for row in rows]] for title, rows in tables]
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_tables(path: Path) -> Iterator[tuple[str, list[ModuleRow]]]:
    """Read what `write_tables` wrote."""
    for title, rows in json.loads(path.read_text(encoding="utf-8")):
        yield title, [ModuleRow(**row) for row in rows]
