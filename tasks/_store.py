"""Where the MLflow store is: its place on this machine, if it is here, and its lock.

| address | what it is | lock |
|---|---|---|
| `sqlite:////srv/mlflow/mlflow.db` | a file | beside it |
| `postgresql+psycopg2://me:secret@db.example/mlflow` | a database | its own, for all machines |
| `https://mlflow.example` | a server | none for all machines |
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import URL, NullPool, create_engine, make_url, text

from ovis_model.errors import ConfigError
from tasks.masking import masked

#: Which of PostgreSQL's advisory locks are this project's; the numbers mean nothing.  A store is
#: made ready in a moment, while registering holds its lock as long as the files travel.
REGISTRY_LOCK, SETUP_LOCK = 0x6F766973, 0x6F766974
#: A database that does not greet within this time is down.
CONNECT_SECONDS = 10


def folder_of(uri: str) -> Path | None:
    """Return the folder of the file that a store lives in; None if it is not a file.

    Example:
        >>> folder_of("sqlite:////srv/mlflow/mlflow.db").as_posix()
        '/srv/mlflow'
        >>> folder_of("https://mlflow.example") is None
        True
    """
    scheme, _, path = uri.partition(":///")
    return Path(path).parent if scheme == "sqlite" and path else None


def is_this_machines(place: str) -> bool:
    """Say whether an artifact location is a folder of this machine.

    Example:
        >>> is_this_machines("file:///srv/mlflow"), is_this_machines("/srv/mlflow")
        (True, True)
        >>> is_this_machines("s3://models"), is_this_machines("mlflow-artifacts:/1")
        (False, False)
    """
    return urlsplit(place).scheme in ("", "file")


@contextmanager
def database_lock(
    uri: str, key: int = REGISTRY_LOCK, *, wait_seconds: float | None = None
) -> Iterator[None]:
    """Keep out everybody who uses this database, from any machine; without one, nobody.

    The lock goes with the connection, so a process that dies leaves none behind.

    Args:
        uri: The store.
        key: Which lock.
        wait_seconds: How long to wait for another holder; None is for as long as it takes.

    Raises:
        ConfigError: If nothing installed here speaks to the database.
        SQLAlchemyError: If the database does not answer, refuses, or the wait was in vain.
    """
    if not uri.startswith("postgresql"):
        yield
        return
    try:
        engine = create_engine(
            _within(uri, CONNECT_SECONDS), poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        connection = engine.connect()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error}: nothing here speaks to {masked(uri)}. `pip install -e "
            ".[postgresql]`, and write the address with postgresql+psycopg2://"
        ) from error
    with connection:
        if wait_seconds is not None:
            connection.execute(text(f"set lock_timeout = {int(1000 * wait_seconds)}"))  # ms
        connection.execute(text("select pg_advisory_lock(:key)"), {"key": key})
        yield


def _within(uri: str, seconds: int) -> URL:
    """Return the address with a limit on how long connecting may take, unless it has one."""
    url = make_url(uri)
    if "connect_timeout" in url.query or "psycopg" not in url.get_driver_name():
        return url
    return url.update_query_dict({"connect_timeout": str(seconds)})
