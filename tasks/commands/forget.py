"""`ovis forget`: the raw data without a sample, and the models that have learned from it.

ovis forget invoice-17 --reason "the customer asked for it"
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ovis_model.errors import ConfigError, DataError
from ovis_model.reports import sha256_of_file
from tasks._account import account
from tasks.commands.lineage import describe_sample
from tasks.params import Params

#: Beside the annotations: what was taken out of them, without saying what it was.
RECORD = "forgotten.jsonl"
WHAT_NOW = (
    "Now: `dvc add {}` and `make run`. Earlier data versions still hold it: when their models are "
    "gone too, `dvc gc --workspace`; `data/.pictures` may be deleted."
)


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "take a sample out of the raw data, and list the models that learned from it"
    parser: argparse.ArgumentParser = commands.add_parser("forget", help=text, description=text)
    parser.add_argument("id", help="the id of the sample, as in the raw data")
    parser.add_argument("--reason", default="", help="why; kept in the record")


def forget(options: argparse.Namespace) -> None:
    """Rewrite the annotations, write the record, list the models.

    Raises:
        ConfigError: Without a reason, or if params.yaml or the store cannot be used.
        DataError: If no annotation file has the sample, or one cannot be rewritten.
    """
    if not options.reason.strip():
        raise ConfigError("--reason is missing; it is kept in the record")
    params = Params.read()
    raw_data = Path(params.validation.raw_data)
    # Imported here: mlflow takes seconds, which `ovis status` need not wait for.
    from tasks._registry import MlflowRegistry  # noqa: PLC0415

    registry = MlflowRegistry(params.register_.model_name)  # an error here leaves the data alone
    removed = _remove(raw_data, params, options.id, {"who": account(), "reason": options.reason})
    lines = [*removed, WHAT_NOW.format(raw_data), "To train again, because they learned from it:"]
    lines += [f"  {line}" for line in describe_sample(registry, options.id)]
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _remove(raw_data: Path, params: Params, sample_id: str, why: dict[str, str]) -> list[str]:
    from ovis_model.data.annotations.removal import find_removal  # noqa: PLC0415
    from ovis_model.data.sources import annotation_files, is_index  # noqa: PLC0415

    files = [path for path in annotation_files(raw_data, params.validation) if not is_index(path)]
    # All of them before any is written: one that cannot be rewritten leaves the others alone.
    removals = [found for path in files if (found := find_removal(path, sample_id))]
    said = []
    for removal in removals:
        _write_record(
            raw_data / RECORD,
            {
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                **why,
                "sample_sha256": hashlib.sha256(sample_id.encode()).hexdigest(),
                "file": removal.path.relative_to(raw_data).as_posix(),
                "records": len(removal.records),
                "before": sha256_of_file(removal.path),
                "after": hashlib.sha256(removal.content).hexdigest(),
            },
        )
        removal.apply()
        count = len(removal.records)
        said.append(f"{removal.path}: {count} record(s) taken out; see {raw_data / RECORD}")
        said += [
            f"  its file, which another sample may use too: {one}"
            for one in _media(removal.records)
        ]
    if not said:
        raise DataError(
            f"no sample {sample_id!r} in {', '.join(map(str, files))}; `ovis data show` finds "
            "samples by the id that the pipeline gives them"
        )
    return said


def _write_record(path: Path, entry: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _media(found: Sequence[Any]) -> Iterator[str]:
    """Name the files of removed records, in the keys that most formats use."""
    for record in found:
        for key in ("image", "images", "video", "videos"):
            value = record.get(key) or []
            yield from (str(one) for one in (value if isinstance(value, list) else [value]))
