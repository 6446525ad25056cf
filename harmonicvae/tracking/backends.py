"""Where jobs run: in this process, in workers of this machine (loky), or on a Dask cluster."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from joblib.externals.loky import get_reusable_executor

from harmonicvae.exceptions import InputError, TrackingError
from harmonicvae.processes import end_with, this_process

#: Names of the backends.
BACKENDS = ("loky", "dask")
#: One thread a worker in every library that counts threads by itself.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
#: Workers that may die before jobs are run one at a time, to find the one that kills them.
_BREAKS = 2
#: A worker process with several threads still runs one job at a time: torch's generators
#: and MLflow's settings belong to the whole process.
_one_job = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Where jobs run.

    Parameters
    ----------
    name : {"loky", "dask"}
    n_jobs : int
        Worker processes; 1 with "loky" runs everything in this process.
    scheduler : str or None
        Address of a Dask scheduler, "tcp://host:8786"; None starts workers here.
    """

    name: str = "loky"
    n_jobs: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.name not in BACKENDS:
            raise InputError(f"backend must be one of {', '.join(BACKENDS)}, got {self.name!r}")
        if self.scheduler and self.name != "dask":
            raise InputError(f"scheduler is for backend=dask only, got backend={self.name!r}")
        if self.name == "dask":
            _import_distributed()

    @property
    def here(self) -> bool:
        """Whether jobs run in this process."""
        return self.name == "loky" and self.n_jobs == 1

    @property
    def threads(self) -> int | None:
        """Threads of each job; None leaves torch its own choice."""
        return None if self.here else 1

    def run(
        self,
        function: Callable[[Any], Any],
        jobs: Sequence[Any],
        lost: Callable[[Any], Any],
    ) -> Iterator[Any]:
        """Run jobs and yield what each returns, as it comes.

        Parameters
        ----------
        function : callable
            From a job to a result; does not raise on failures of the job itself, and may be
            called again for a job whose worker has died.
        jobs : sequence
        lost : callable
            From a job whose process died several times to the result that says so.

        Yields
        ------
        object

        Raises
        ------
        TrackingError
            If the Dask scheduler cannot be reached.
        """
        if self.here:
            yield from map(function, jobs)
        elif self.name == "loky":
            yield from _run_loky(function, jobs, self.n_jobs, lost)
        else:
            yield from _run_dask(function, jobs, self, lost)


# ------------------------------------------------------------------------------------ loky


def _run_loky(
    function: Callable[[Any], Any], jobs: Sequence[Any], n_jobs: int, lost: Callable[[Any], Any]
) -> Iterator[Any]:
    """Run jobs in worker processes of this machine.

    A worker that dies (killed, out of memory) takes its pool along.  What was unfinished is
    then run again, after the second time one process at a time, and a job whose process
    dies even alone is lost.
    """
    left, breaks = list(jobs), 0
    while left:
        workers = min(n_jobs, len(left)) if breaks < _BREAKS else 1
        done: list[Any] = []
        for job, result in _pool_results(function, left, workers):
            done.append(id(job))
            yield result
        left = [job for job in left if id(job) not in done]
        if left and workers == 1 and breaks >= _BREAKS:
            yield lost(left.pop(0))
        breaks += 1


def _pool_results(
    function: Callable[[Any], Any], jobs: Sequence[Any], workers: int
) -> Iterator[tuple[Any, Any]]:
    """Yield what one pool finishes before it ends or breaks."""
    pool = get_reusable_executor(max_workers=workers, env=_ONE_THREAD, reuse=False)
    try:
        futures = {pool.submit(_run_in_child, function, job, this_process()): job for job in jobs}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenExecutor:
                continue
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def _run_in_child(function: Callable[[Any], Any], job: Any, parent: str) -> Any:
    """Run a job in a worker that ends with its driver, even if that is killed."""
    end_with(parent)
    return function(job)


# ------------------------------------------------------------------------------------ Dask


def _import_distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            "backend=dask needs the package distributed: pip install 'harmonicvae[distributed]'"
        ) from error
    return distributed


def _run_dask(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    backend: Backend,
    lost: Callable[[Any], Any],
) -> Iterator[Any]:
    """Run jobs on a Dask cluster; the scheduler moves those of a dead worker to another one."""
    distributed = _import_distributed()
    with _dask_client(distributed, backend) as client:
        _look_at_workers(client)
        futures = {client.submit(_run_alone, function, job, pure=False): job for job in jobs}
        try:
            for future in distributed.as_completed(list(futures), loop=client.loop):
                if future.status == "error" and isinstance(
                    future.exception(), distributed.scheduler.KilledWorker
                ):
                    yield lost(futures[future])
                else:
                    yield future.result()
        except (distributed.CancelledError, distributed.comm.CommClosedError) as error:
            raise TrackingError(
                f"the Dask scheduler {backend.scheduler or ''} is gone; nothing finished is "
                "lost: start it and repeat the command to continue"
            ) from error
        finally:
            with suppress(Exception):  # the scheduler may be gone
                client.cancel([future for future in futures if not future.done()], force=True)


class _dask_client:
    """Connect to the scheduler, or start workers on this machine."""

    def __init__(self, distributed: Any, backend: Backend) -> None:
        self.distributed, self.backend = distributed, backend
        self.cluster: Any = None

    def __enter__(self) -> Any:
        address = self.backend.scheduler
        if not address:
            self.cluster = address = self.distributed.LocalCluster(
                n_workers=self.backend.n_jobs, threads_per_worker=1, dashboard_address=None
            )
        try:
            self.client = self.distributed.Client(address, timeout=30, set_as_default=False)
        except (OSError, ValueError) as error:
            raise TrackingError(
                f"no Dask scheduler at {address!r} ({error}); start one with `dask scheduler` "
                "and workers with `dask worker ADDRESS --nthreads 1`"
            ) from error
        return self.client

    def __exit__(self, *exception: Any) -> None:
        with suppress(Exception):
            self.client.close()
        if self.cluster is not None:
            self.cluster.close()


def _look_at_workers(client: Any) -> None:
    """Say what is not as it should be with a cluster's workers."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        print("harmonicvae: the Dask scheduler has no worker yet; waiting", file=sys.stderr)
    several = [worker["name"] for worker in workers.values() if worker["nthreads"] > 1]
    if several:
        print(
            f"harmonicvae: {len(several)} Dask workers have several threads; each still trains "
            "one model at a time: start them with --nthreads 1, as many as there are cores",
            file=sys.stderr,
        )


def _run_alone(function: Callable[[Any], Any], job: Any) -> Any:
    """Run a job while no other one runs in this process."""
    with _one_job:
        return function(job)
