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

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from ovis_model.errors import ConfigError
from tasks.masking import masked

#: Which of PostgreSQL's advisory locks is this project's; the number means nothing.
ADVISORY_LOCK = 0x6F766973


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
def database_lock(uri: str) -> Iterator[None]:
    """Keep out everybody who uses this database, from any machine; without one, nobody.

    The lock goes with the connection, so a process that dies leaves none behind.

    Raises:
        ConfigError: If the database cannot be used.
    """
    if not uri.startswith("postgresql"):
        yield
        return
    try:
        engine = create_engine(uri, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        connection = engine.connect()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error}: nothing here speaks to {masked(uri)}. `pip install -e "
            ".[postgresql]`, and write the address with postgresql+psycopg2://"
        ) from error
    except SQLAlchemyError as error:
        raise ConfigError(
            masked(f"the MLflow store {uri} cannot be used: {error}")
        ) from None  # the cause may show who logs in, and how
    with connection:
        connection.execute(text("select pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        yield
