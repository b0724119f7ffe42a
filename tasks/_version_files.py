"""The files of a version: kept on this machine, or uploaded with it.

    by reference    the store is this machine's: the version names `models/.registered/<digest>`,
                    and nothing is copied
    uploaded        any other store: the files are artifacts of the version, under
                    `artifacts/<digest>/`, so that every machine can load it

What was uploaded is checked twice: before an alias moves by what the store says of it, which
takes no download, and when the version is loaded by every file's sha256.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ovis_model.errors import CheckpointError, PromotionError, list_examples
from ovis_model.model_folder import MANIFEST, digest_of, verify_model_folder
from ovis_model.registry import MODEL_DIGEST
from tasks._mlflow import MlflowClient, MlflowException, ModelVersion, mlflow

#: Name of the files among the artifacts that `load_context` gets.
CHECKPOINT = "checkpoint"
#: Tag of a version that was uploaded: the bytes of all its files.
UPLOADED_BYTES = "ovis.uploaded_bytes"


def count_bytes(folder: Path) -> int:
    """Return the size of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def model_id_of(version: ModelVersion) -> str:
    """Return MLflow's own name of the model in a version that this project made."""
    return str(version.source).removeprefix("models:/")


def check_upload(client: MlflowClient, version: ModelVersion) -> None:
    """Compare what the store has of a version with what was uploaded, and read its manifest.

    Args:
        client: Of the store.
        version: It was uploaded.

    Raises:
        PromotionError: Naming files that are missing, were added or cannot be as they were.
    """
    digest, num_bytes = version.tags[MODEL_DIGEST], int(version.tags[UPLOADED_BYTES])
    root = f"artifacts/{digest}"
    sizes = dict(_list_files(client, model_id_of(version), root))
    if MANIFEST not in sizes:
        raise PromotionError(f"the store has no {MANIFEST} of it, under {root}")
    listed = _read_manifest(client, version, f"{root}/{MANIFEST}")
    if digest_of(listed) != digest:
        raise PromotionError(f"the {MANIFEST} in the store is that of another model")
    for what, names in (
        ("has not", listed.keys() - sizes.keys()),
        ("has, and nobody registered,", sizes.keys() - listed.keys() - {MANIFEST}),
    ):
        if names:
            raise PromotionError(f"the store {what} {list_examples(sorted(names))}")
    if sum(sizes.values()) != num_bytes:
        raise PromotionError(
            f"the store has {sum(sizes.values()):,} bytes of it, and {num_bytes:,} were uploaded"
        )


def download(client: MlflowClient, version: ModelVersion, folder: Path) -> None:
    """Bring the files of a version that was uploaded into a folder, which appears whole.

    Args:
        client: Of the store.
        version: It was uploaded.
        folder: Is not there yet.

    Raises:
        PromotionError: If the store does not give them, or gives others than were uploaded.
    """
    digest = version.tags[MODEL_DIGEST]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as partial:
        try:
            copy = mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{version.name}/{version.version}/artifacts/{digest}",
                dst_path=partial,
                tracking_uri=client.tracking_uri,
            )
            found = verify_model_folder(Path(copy))
        except (MlflowException, CheckpointError) as error:
            raise PromotionError(
                f"version {version.version} cannot be brought here: {error}"
            ) from error
        if found != digest:
            raise PromotionError(
                f"version {version.version} cannot be brought here: the store holds another "
                f"model ({found[:12]}...)"
            )
        Path(copy).rename(folder)


def _list_files(client: MlflowClient, model_id: str, folder: str) -> Iterator[tuple[str, int]]:
    """Yield the files below a folder by their path in it, with their sizes in bytes."""
    for one in client.list_logged_model_artifacts(model_id, folder):
        name = Path(one.path).name
        if one.is_dir:
            below = _list_files(client, model_id, f"{folder}/{name}")
            yield from ((f"{name}/{path}", size) for path, size in below)
        else:
            yield name, one.file_size or 0


def _read_manifest(client: MlflowClient, version: ModelVersion, path: str) -> dict[str, str]:
    with TemporaryDirectory() as folder:
        try:
            copy = mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{version.name}/{version.version}/{path}",
                dst_path=folder,
                tracking_uri=client.tracking_uri,
            )
            return dict(json.loads(Path(copy).read_bytes())["files"])
        except (MlflowException, ValueError, KeyError) as error:
            raise PromotionError(f"{path} in the store cannot be read: {error}") from error
