"""The store in bad weather: patience while it is locked, clear words when the disk is full."""

from __future__ import annotations

import errno
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import requests
from mlflow import MlflowClient

from harmonicvae.exceptions import StorageError
from harmonicvae.tracking.specs import StoreSpec

T = TypeVar("T")

#: Seconds for which a locked store is asked again.
PATIENCE_SECONDS = 120.0
_PATIENCE_VARIABLE = "HARMONICVAE_STORE_PATIENCE"
#: System errors that mean "no room": full disk, quota, file size limit.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CONTINUE = "nothing finished is lost: repeat the command to continue"


def client_of(store: StoreSpec) -> Any:
    """Return an MLflow client whose calls wait while the store is locked.

    Parameters
    ----------
    store : StoreSpec

    Returns
    -------
    PatientClient
        With the methods of ``mlflow.MlflowClient``.
    """
    return PatientClient(store.tracking_uri)


class PatientClient:
    """``MlflowClient`` whose every call goes through :func:`patiently`.

    Parameters
    ----------
    tracking_uri : str
    """

    def __init__(self, tracking_uri: str) -> None:
        self._client = MlflowClient(tracking_uri)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            return patiently(lambda: method(*arguments, **options))

        return call


def patiently(function: Callable[[], T], seconds: float | None = None) -> T:
    """Call a function, again while the store is locked by another process.

    Parameters
    ----------
    function : callable
        Uses the MLflow store; may be called several times, so it must not matter if an
        earlier call had an effect.
    seconds : float or None
        How long; None means :data:`PATIENCE_SECONDS`, or the environment variable
        HARMONICVAE_STORE_PATIENCE.

    Returns
    -------
    What the function returns.

    Raises
    ------
    StorageError
        If the store stays locked, cannot be reached, or the disk is full.
    Exception
        Whatever else the function raises.
    """
    if seconds is None:
        seconds = float(os.environ.get(_PATIENCE_VARIABLE, PATIENCE_SECONDS))
    deadline, pause = time.monotonic() + seconds, 0.1
    while True:
        try:
            return function()
        except Exception as error:
            problem = storage_problem(error)
            if problem is None:
                raise
            if not is_locked(error) or time.monotonic() > deadline:
                raise StorageError(problem) from error
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, 5.0)


@contextmanager
def in_clear_words() -> Iterator[None]:
    """Turn a full disk or an unreachable store inside the block into a StorageError."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        problem = storage_problem(error)
        if problem is None:
            raise
        raise StorageError(problem) from error


def storage_problem(error: BaseException) -> str | None:
    """Return in words what is wrong with disk or store; None if it is something else.

    Parameters
    ----------
    error : BaseException
        With its causes.

    Returns
    -------
    str or None

    Examples
    --------
    >>> storage_problem(OSError(errno.ENOSPC, "No space left on device", "model.pt"))
    'no room left on the disk (model.pt); free some; nothing finished is lost: repeat ...'
    >>> storage_problem(ValueError("x")) is None
    True
    """
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in _NO_ROOM:
            where = f" ({link.filename})" if link.filename else ""
            return f"no room left on the disk{where}; free some; {_CONTINUE}"
        text = str(link).lower()
        if "no space left on device" in text or "database or disk is full" in text:
            return f"no room left on the disk; free some; {_CONTINUE}"
        if _LOCKED in text:
            return (
                "the MLflow store is locked by another process; end that or use "
                f"`mlflow server`; {_CONTINUE}"
            )
        if isinstance(link, (requests.ConnectionError, ConnectionError)):
            return f"the MLflow server cannot be reached; start it again; {_CONTINUE}"
    return None


def say_it_once() -> None:
    """Keep MLflow from logging, with a traceback, the trouble that we put into words."""
    logger = logging.getLogger("mlflow.store.db.utils")
    if _unsaid not in logger.filters:
        logger.addFilter(_unsaid)


def _unsaid(record: logging.LogRecord) -> bool:
    """Tell whether a log record is about something else than known trouble."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or storage_problem(error) is None


_LOCKED = "database is locked"


def is_locked(error: BaseException) -> bool:
    """Tell whether an error means that another process holds the store's lock."""
    return any(_LOCKED in str(link).lower() for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and those that were hidden by it."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
