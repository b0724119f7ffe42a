"""The registry of models in MLflow, with the log of its promotions.

The log is a file.  Of a store in an sqlite file, it and the lock are beside that file, so every
process that can open the store shares them.  Of any other store the file is a copy of what the
store keeps as an artifact of a run: fetched before a change, sent after each line.  Where
MLFLOW_TRACKING_URI names a PostgreSQL database, that keeps the lock, for all machines.  A server
keeps none: two machines that change its registry in the same moment are not kept apart; the next
command notices, because the two logs differ.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory

from ovis_model.errors import PromotionError
from ovis_model.promotion_log import PromotionLog
from ovis_model.registry import INPUTS_DIGEST, MODEL_DIGEST
from tasks._account import account
from tasks._mlflow import (
    MlflowClient,
    MlflowException,
    ModelVersion,
    RegisteredModel,
    Run,
    as_default_store,
    create_run,
    locked,
    mlflow,
    patient,
    run_of,
    setup,
    store_lock,
)
from tasks._store import folder_of, is_this_machines
from tasks._version_files import (
    CHECKPOINT,
    UPLOADED_BYTES,
    check_upload,
    count_bytes,
    download,
    model_id_of,
)
from tasks.artifacts import KEPT_MODELS, MLFLOW_HOME

#: The code of a version, by reference: MLflow keeps a copy of this file, which calls ours.
SERVING = Path(__file__).with_name("_serving.py")
#: What loading a version needs besides this project.  Listed, because finding out by itself
#: makes MLflow load the model and ask the package index.
REQUIREMENTS = ("mlflow", "torch", "transformers", "safetensors", "pillow", "pydantic")
#: A black square on white, 16 px x 16 px.  MLflow asks it once when a version is made, so it is
#: short; and it is what the registry's page shows.
EXAMPLE = [
    {
        "question": "What is in this picture?",
        "image": "data:image/png;base64,"
        "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQAAAAA3iMLMAAAAGElEQVR42mP8z8DEAEUMH/jhbGTEiKQGAF9w"
        "AxoTxtFoAAAAAElFTkSuQmCC",
        "enable_thinking": False,
        "max_new_tokens": 16,
    }
]
#: Tag of a registered model: sha256 of the newest line of its log.
LOG_HEAD = "ovis.promotions_head"
#: Tag of a registered model: the run that keeps its log, where the store is not a file.
LOG_RUN = "ovis.promotions_run"
#: Where files that belong to a version lie among those of its run.
KEPT_FOLDER = "lineage"
#: The whole card, of which a version's description holds the beginning.
CARD = "model_card.md"
#: Longer descriptions are refused by PostgreSQL, where sqlite takes them.
MAX_DESCRIPTION = 5000
CUT = f"\n\n... (the rest is in the version's file {CARD})"
VERSIONS_PER_PAGE = 1000


logger = logging.getLogger(__name__)


class MlflowRegistry:
    """The versions of one registered model: the `Registry` of ovis_model.registry."""

    def __init__(self, model_name: str) -> None:
        self._name = model_name
        self._uri = setup()
        self._client = MlflowClient(tracking_uri=self._uri)
        folder = folder_of(self._uri)
        self._is_file = folder is not None
        self._home = folder or MLFLOW_HOME
        self._log = PromotionLog(self._home / "promotions" / f"{model_name}.jsonl", who=account())

    @property
    def promotions(self) -> PromotionLog:
        """The record of every move of an alias."""
        return self._log

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep out others that write to this store, as far as it can be done: see above.

        Raises:
            ConfigError: If the database that keeps the lock cannot be used.
        """
        with locked("registry", self._home), store_lock(self._uri):
            yield

    def find_version(self, tag: str, value: str) -> int | None:
        """Return the oldest version with this tag, or None."""
        found = self._client.search_model_versions(
            f"name = '{self._name}' and tags.`{tag}` = '{value}'"
        )
        return min((int(one.version) for one in found), default=None)

    @patient()
    def add_version(self, model: Path, tags: Mapping[str, str]) -> int:
        """Enter a model folder: by reference, or with its files where others must reach them.

        The version appears with its tags in one step, so it is never there without its digest,
        nor before its files are.
        """
        run = run_of(self._client, tags[INPUTS_DIGEST])
        self._create()
        place = {"model_digest": tags[MODEL_DIGEST]}
        files = None
        if self._keeps_files_elsewhere(run):
            files = {CHECKPOINT: str(model.resolve())}
            tags = {**tags, UPLOADED_BYTES: str(count_bytes(model))}
        else:
            place[CHECKPOINT] = str(model.resolve())
        entry = self._client.create_logged_model(
            run.info.experiment_id, self._name, source_run_id=run.info.run_id, tags=dict(tags)
        )
        # Without a local suffix such as +cpu, which no package index has.
        requirements = [f"{one}=={installed_version(one).split('+')[0]}" for one in REQUIREMENTS]
        # Even the client looks for what it was told by id in the default store.
        with as_default_store(self._uri):
            mlflow.pyfunc.log_model(
                model_id=entry.model_id,
                python_model=str(SERVING),
                artifacts=files,
                model_config=place,
                input_example=EXAMPLE,
                pip_requirements=requirements,
            )
            version = self._client.create_model_version(
                self._name,
                f"models:/{entry.model_id}",
                run_id=run.info.run_id,
                tags=dict(tags),
                model_id=entry.model_id,
            )
        return int(version.version)

    def _keeps_files_elsewhere(self, run: Run) -> bool:
        return not (self._is_file and is_this_machines(run.info.artifact_uri))

    @patient()
    def check_upload(self, version: int) -> bool:
        """Say whether the store holds this version's files; if it does, look through them.

        Raises:
            PromotionError: If they are not what was uploaded.
        """
        found = self._version(version)
        if UPLOADED_BYTES not in found.tags:
            return False
        with as_default_store(self._uri):
            check_upload(self._client, found)
        return True

    @patient()
    def files_of(self, version: int) -> Path:
        """Return where the files of a version are or would be, bringing them if they can be.

        Raises:
            PromotionError: If the store holds them, but they are not what was uploaded.
        """
        found = self._version(version)
        folder = KEPT_MODELS / self._name / found.tags.get(MODEL_DIGEST, "unknown")
        if not folder.is_dir() and UPLOADED_BYTES in found.tags:
            logger.info("bringing the files of version %d to %s", version, folder)
            with as_default_store(self._uri):
                download(self._client, found, folder)
        return folder

    def tags_of(self, version: int) -> dict[str, str]:
        """Return a version's tags.

        Raises:
            PromotionError: If there is no such version.
        """
        return dict(self._version(version).tags)

    def set_tags(self, version: int, tags: Mapping[str, str]) -> None:
        """Replace these tags of a version, in their order."""
        for key, value in tags.items():
            self._client.set_model_version_tag(self._name, str(version), key, value)

    @patient()
    def describe(self, version: int, text: str) -> None:
        """Replace a version's description, and the file that has all of a longer one."""
        model_id = model_id_of(self._version(version))
        with TemporaryDirectory() as folder:
            card = Path(folder) / CARD
            card.write_text(text, encoding="utf-8")
            self._client.log_model_artifact(model_id, str(card))
        if len(text) > MAX_DESCRIPTION:
            text = text[: MAX_DESCRIPTION - len(CUT)] + CUT
        self._client.update_model_version(self._name, str(version), description=text)

    def version_at(self, alias: str) -> int | None:
        """Return the version an alias points at, or None."""
        model = self._registered()
        version = model.aliases.get(alias) if model else None
        return None if version is None else int(version)

    def move_alias(self, alias: str, version: int | None) -> None:
        """Point an alias at a version; None removes it."""
        if version is None:
            self._client.delete_registered_model_alias(self._name, alias)
        else:
            self._client.set_registered_model_alias(self._name, alias, str(version))

    @patient()
    def fetch_log(self) -> str | None:
        """Make `promotions` as long as what was published, and return its newest line's sha256.

        Raises:
            PromotionError: If the two are not one log.
        """
        model = self._registered()
        if model is None or LOG_HEAD not in model.tags:
            return None
        if LOG_RUN in model.tags:
            with TemporaryDirectory() as folder:
                copy = self._client.download_artifacts(
                    model.tags[LOG_RUN], self._log.path.name, folder
                )
                self._log.catch_up(Path(copy).read_bytes())
        return str(model.tags[LOG_HEAD])

    @patient()
    def publish_log(self, head: str) -> None:
        """Publish `promotions`, whose newest line has this sha256, which an edit cannot reach."""
        model = self._create()
        if not self._is_file:
            run_id = model.tags.get(LOG_RUN) or self._start_log_run()
            self._client.log_artifact(run_id, str(self._log.path))
        self._client.set_registered_model_tag(self._name, LOG_HEAD, head)

    def _start_log_run(self) -> str:
        run = create_run(self._client, f"promotions-{self._name}", {})
        self._client.set_terminated(run.info.run_id)
        self._client.set_registered_model_tag(self._name, LOG_RUN, run.info.run_id)
        return str(run.info.run_id)

    def versions(self) -> list[int]:
        """Return every version, oldest first."""
        return [int(one.version) for one in self._all()]

    def versions_with(self, tag: str) -> list[int]:
        """Return the versions that have this tag, oldest first."""
        return [int(one.version) for one in self._all() if tag in one.tags]

    def _all(self) -> list[ModelVersion]:
        found: list[ModelVersion] = []
        token = None
        while True:
            page = self._client.search_model_versions(
                f"name = '{self._name}'", max_results=VERSIONS_PER_PAGE, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return sorted(found, key=lambda one: int(one.version))

    def run_of(self, version: int) -> Run:
        """Return the run that trained a version."""
        return self._client.get_run(self._run_id(version))

    @patient()
    def keep_file(self, version: int, path: Path) -> None:
        """Put a file on the run that trained a version."""
        self._client.log_artifact(self._run_id(version), str(path), KEPT_FOLDER)

    @patient()
    def kept_file(self, version: int, name: str, folder: Path) -> Path:
        """Copy a file that was kept with a version into a folder."""
        run_id = self._run_id(version)
        path = f"{KEPT_FOLDER}/{name}"
        return Path(self._client.download_artifacts(run_id, path, str(folder)))

    def file_of_run(self, version: int, name: str) -> bytes | None:
        """Return a file of the run that trained a version; None if there is none."""
        run_id = self._run_id(version)
        if name not in {one.path for one in self._client.list_artifacts(run_id)}:
            return None
        with TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, name, folder)).read_bytes()

    def kept_files(self, version: int) -> list[str]:
        """List what lies on the run that trained a version, folders with a slash."""
        found = self._client.list_artifacts(self._run_id(version))
        return [f"{one.path}/" if one.is_dir else one.path for one in found]

    def _run_id(self, version: int) -> str:
        run_id = self._version(version).run_id
        if not run_id:
            raise PromotionError(
                f"{self._name} version {version} names no run; it was not registered by this "
                "pipeline, so nothing is known of where it comes from"
            )
        return run_id

    def _version(self, version: int) -> ModelVersion:
        try:
            return self._client.get_model_version(self._name, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise PromotionError(
                f"{self._name} has no version {version}; `make ui` shows those there are"
            ) from error

    def _create(self) -> RegisteredModel:
        return self._registered() or self._client.create_registered_model(self._name)

    def _registered(self) -> RegisteredModel | None:
        found = self._client.search_registered_models(f"name = '{self._name}'")
        return found[0] if found else None
