"""A folder as the validate step writes it, without validating."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovis_model.data.schema import Sample, write_samples
from ovis_model.reports import sha256_of_file


def write_validated(
    root: Path,
    samples: Sequence[dict[str, Any]],
    *,
    holdout: Sequence[dict[str, Any]] = (),
    **more,
) -> Path:
    """Write what the validate step writes about samples that it let pass, good or not.

    Args:
        root: Folder whose `raw` holds the media; `validated` is written beside it.
        samples: Of the train part.
        holdout: Of the other part.
        more: Further keys of the manifest.

    Returns:
        The root.
    """
    folder = root / "validated"
    shutil.rmtree(folder, ignore_errors=True)
    parts = {"train": samples, "holdout": holdout}
    parsed = {part: list(map(Sample.model_validate, parts[part])) for part in parts}
    for part, content in parsed.items():
        write_samples(folder / f"{part}.jsonl", content)
    paths = sorted({path for content in parsed.values() for one in content for path in one.media})
    (folder / "media.jsonl").write_text(
        "".join(
            json.dumps({"path": path, "sha256": sha256_of_file(root / "raw" / path)}) + "\n"
            for path in paths
        )
    )
    files = {path.name: {"sha256": sha256_of_file(path)} for path in folder.glob("*.jsonl")}
    (folder / "manifest.json").write_text(json.dumps({"files": files, **more}))
    return root
