"""Runs left open by dead processes: found at the next start and marked KILLED."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from harmonicvae import names
from harmonicvae.processes import describe, is_alive
from harmonicvae.tracking import runs
from harmonicvae.tracking.specs import StoreSpec
from harmonicvae.tracking.storage import client_of

#: Seconds between two signs of life of a driver.
HEARTBEAT_SECONDS = 60.0


def reap(store: StoreSpec) -> list[str]:
    """Mark runs whose process is gone as KILLED; to be called before a new start.

    Parameters
    ----------
    store : StoreSpec
        Its experiment is looked through.

    Returns
    -------
    list of str
        Their ids.  Runs without an owner (of other programs) are left alone.
    """
    client = client_of(store)
    found = open_runs(client, store.experiment_id)
    beats = {run.info.run_id: run.data.tags.get(names.TAG_HEARTBEAT) for run in found}
    dead = []
    for run in found:
        tags = run.data.tags
        beat = tags.get(names.TAG_HEARTBEAT) or beats.get(tags.get(names.TAG_PARENT, ""))
        if not is_alive(tags[names.TAG_OWNER], beat):
            owner = describe(tags[names.TAG_OWNER])
            reason = f"{owner} ended without closing this run; repeat its command to continue"
            runs.end_run(store, run.info.run_id, "KILLED", reason)
            dead.append(run.info.run_id)
    return dead


def open_runs(client: Any, experiment_id: str) -> list[Any]:
    """Return all runs with an owner that are RUNNING or SCHEDULED."""
    found = []
    for status in ("RUNNING", "SCHEDULED"):
        token = None
        while True:
            page = client.search_runs(
                [experiment_id], f"attributes.status = '{status}'", page_token=token
            )
            found += [run for run in page if names.TAG_OWNER in run.data.tags]
            token = page.token
            if not token:
                break
    return found


@contextmanager
def heartbeat(store: StoreSpec, run_id: str) -> Iterator[None]:
    """Write signs of life into a run while a block runs, for readers on other hosts."""
    stop = threading.Event()
    client = client_of(store)

    def beat() -> None:
        while True:
            with suppress(Exception):  # a store that is away for a while ends nothing here
                client.set_tag(run_id, names.TAG_HEARTBEAT, f"{time.time():.0f}")
            if stop.wait(HEARTBEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
