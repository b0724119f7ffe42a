"""Puts files onto a run, and says in MLflow's words what a store of files says is wrong.

MLflow passes on what the client of the files' store raises: requests.HTTPError of a server that
keeps them, boto's errors of a bucket that is used directly.
"""

from pathlib import Path

import requests

from tasks._mlflow import PASSING, MlflowClient, MlflowException

#: Of the answers that blame a request: what the same request may get past later.
PASSING_STATUS = {401, 407, 408, 425, 429}


def attach(client: MlflowClient, run_id: str, path: Path, folder: str | None) -> None:
    """Copy a file, or the files of a directory, onto a run.

    Raises:
        MlflowException: If the file will never be taken.
        OSError: If it may be taken later.
    """
    if not path.exists():
        raise MlflowException.invalid_parameter_value(f"the copy to attach, {path}, is gone")
    try:
        if path.is_dir():
            client.log_artifacts(run_id, str(path), folder or path.name)
        else:
            client.log_artifact(run_id, str(path), folder)
    except MlflowException as error:  # files may be kept by another server than the run
        if error.error_code in PASSING:
            raise OSError(f"{path.name} was not taken: {error}") from None
        raise
    except _errors() as error:
        what = f"{path.name} was not taken: {error}"
        if is_refusal(status_of(error)):
            raise MlflowException.invalid_parameter_value(what) from None  # it may show who
        raise OSError(what) from None  # logs in


def is_refusal(status: int | None) -> bool:
    """Say whether an HTTP status means that the same request will never be taken.

    Example:
        >>> [is_refusal(status) for status in (400, 403, 413, 401, 429, 503, None)]
        [True, True, True, False, False, False, False]
    """
    return status is not None and 400 <= status < 500 and status not in PASSING_STATUS


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that an error is about; None if there was no answer."""
    if isinstance(error, requests.HTTPError):
        return None if error.response is None else int(error.response.status_code)
    # boto3 wraps the answer's error while it handles it.
    for one in (error, error.__context__):
        answer = getattr(one, "response", None)
        if isinstance(answer, dict):
            return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
    return None


def _errors() -> tuple[type[Exception], ...]:
    """Return what is raised; asked only when something was, for boto loads slowly."""
    try:
        from boto3.exceptions import Boto3Error  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    except ModuleNotFoundError:  # optional packages, for stores in S3
        return (requests.HTTPError,)
    return requests.HTTPError, Boto3Error, BotoCoreError, ClientError
