"""scikit-learn's searches in MLflow: a run for the search, one below it for each candidate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.autologging_utils import disable_autologging
from sklearn.model_selection._search import BaseSearchCV

from harmonicvae import names
from harmonicvae._version import __version__
from harmonicvae.exceptions import InputError, TrackingError
from harmonicvae.tracking import runs, sweep_runs
from harmonicvae.tracking.fold_recorder import recording
from harmonicvae.tracking.specs import StoreSpec
from harmonicvae.tracking.stores import first_line, open_store, outer_run_id


class SweepLogger:
    """Fit a scikit-learn search and log it to MLflow: one run, and one below it a candidate.

    A candidate's run holds its parameters, scores of all folds and the training curves of
    every HarmonicVAE inside (means over folds by epoch; fold by fold in ``curves.csv``), even
    where the folds were trained in other processes or on other hosts.  The search's own run
    holds its parameters, the data's shape and digest, ``cv_results.csv``, ``curves.csv``,
    the best candidate, and curves and model of the refit, the latter where it can be stored
    without pickle.

    Parameters
    ----------
    experiment : str or None, default=None
        None means that of the active run, else the one set by ``mlflow.set_experiment`` or
        ``MLFLOW_EXPERIMENT_NAME``, else "harmonicvae".
    name : str or None, default=None
        Name of the search's run.  Without one, an active run that holds no search yet
        becomes the search's run; else a run of its own is made, below the active one if
        that belongs to the same experiment.
    tracking_uri : str or None, default=None
        MLflow store; None means MLflow's own choice.  MLflow's setting is the same after.
    log_models : bool, default=True
        Whether to store ``best_estimator_``.  Only a HarmonicVAE can be stored without
        pickle; for a pipeline the tag ``harmonicvae.model_not_stored`` says so.

    Attributes
    ----------
    run_id_ : str
        Run of the search.
    candidate_run_ids_ : list of str
        Runs of the candidates in the order of ``cv_results_``; for halving searches one for
        every candidate of every iteration.

    Notes
    -----
    Scores, ``cv_results_`` and all other attributes are those of ``search.fit``, and
    nothing of the logger stays in the search.  Works with joblib's backends: sequential,
    threading, loky, multiprocessing and Dask; workers need not reach the store.  The
    candidate of a failed fold is a FAILED run with the reason.  After Ctrl-C or an error
    the search's run is KILLED or FAILED and holds what was scored until then in
    ``curves.csv`` and ``fold_scores.csv`` (a search does not tell where an unfinished
    iteration's folds belong: they are counted as they arrived).

    MLflow's autologging is off inside :meth:`fit`, so nothing is logged twice.  Without
    this class it logs scores but no curves:
    ``mlflow.sklearn.autolog(log_models=False, max_tuning_runs=None, silent=True)`` gives one
    run below the search's for every candidate of GridSearchCV and RandomizedSearchCV, and
    none for halving searches, which it does not know.  With ``log_models=True`` it pickles
    the estimator, after a warning.

    Threads are left alone, for their number changes the last bits of scores.  joblib's loky
    gives every worker cores / n_jobs threads (``OMP_NUM_THREADS``, which torch reads; one in
    ``parallel_config(inner_max_num_threads=1)``), Dask's nanny one; the threading backend
    limits nothing: set ``torch.set_num_threads(1)`` before.  Fits in threads of one process
    share torch's global generator, so their scores differ from run to run whatever
    ``random_state``, with or without this class; prefer processes.

    Examples
    --------
    >>> import contextlib, tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from harmonicvae import HarmonicVAE, SweepLogger
    >>> X = load_digits().data[:200] / 8 - 1
    >>> vae = HarmonicVAE(hidden_dims=(), max_epochs=2, random_state=0)
    >>> search = GridSearchCV(vae, {"encoder_std": [0.1, 1.0]}, cv=2)
    >>> logger = SweepLogger(tracking_uri="sqlite:///mlflow.db", log_models=False)
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    ...     logger.fit(search, X) is search, len(logger.candidate_run_ids_)
    (True, 2)
    """

    run_id_: str
    candidate_run_ids_: list[str]

    def __init__(
        self,
        experiment: str | None = None,
        name: str | None = None,
        tracking_uri: str | None = None,
        log_models: bool = True,
    ) -> None:
        self.experiment = experiment
        self.name = name
        self.tracking_uri = tracking_uri
        self.log_models = log_models

    def fit(self, search: Any, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit a search in place and log it.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV, HalvingGridSearchCV or the like
            Whatever inherits scikit-learn's BaseSearchCV.
        X : array-like of shape (n, d)
            Training data.
        y : array-like or None, default=None
            Target.
        **fit_params
            Passed to ``search.fit``.

        Returns
        -------
        BaseSearchCV
            ``search``, fitted.

        Raises
        ------
        InputError
            If ``search`` is no search of scikit-learn, or a parameter is not valid.
        TrackingError
            If the store cannot be opened.

        Notes
        -----
        If logging fails after the search, its error is raised and the search is fitted.
        """
        self._check(search)
        with _same_tracking_uri(), self._search_run(search) as store:
            run_id = self.run_id_ = str(store.parent_run_id)
            self.candidate_run_ids_ = []
            sweep_runs.log_search(store, run_id, search, X, y)
            with disable_autologging():
                self._fit(store, search, X, y, fit_params)
        return search

    def _check(self, search: Any) -> None:
        if not isinstance(search, BaseSearchCV):
            raise InputError(
                f"search must be a search of scikit-learn such as GridSearchCV, got {search!r}"
            )
        for key in ("experiment", "name", "tracking_uri"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, str) or not value):
                raise InputError(f"{key} must be a text or None, got {value!r}")
        if not isinstance(self.log_models, bool):
            raise InputError(f"log_models must be True or False, got {self.log_models!r}")

    def _fit(
        self, store: StoreSpec, search: Any, X: Any, y: Any, fit_params: dict[str, Any]
    ) -> None:
        """Run the search, then log its candidates and itself."""
        with recording(search) as recorder:
            try:
                search.fit(X, y, **fit_params)
            except BaseException:
                with suppress(Exception):  # the error of the search is the one to show
                    sweep_runs.log_partial(store, self.run_id_, recorder.folds())
                raise
        folds = recorder.folds()
        try:
            self.candidate_run_ids_ = sweep_runs.log_candidates(store, search, folds)
        except BaseException:
            sweep_runs.end_candidates(store, "interrupted while the search was logged")
            raise
        sweep_runs.log_outcome(store, self.run_id_, search, folds, self.candidate_run_ids_)
        if self.log_models:
            with _active(store):
                sweep_runs.log_best_model(store, self.run_id_, search)

    # ------------------------------------------------------------------ the search's run

    @contextmanager
    def _search_run(self, search: Any) -> Iterator[StoreSpec]:
        """Open the search's run and end it whatever happens, unless it is the user's own."""
        outer = _outer_run()
        store = self._store(outer)
        inside = outer is not None and outer.info.experiment_id == store.experiment_id
        if outer is not None and inside and not self.name and _is_free(outer):
            client = MlflowClient(store.tracking_uri)
            client.set_tag(outer.info.run_id, names.TAG_ROLE, sweep_runs.ROLE_SEARCH)
            client.set_tag(outer.info.run_id, names.TAG_VERSION, __version__)
            with _adopted(store, outer.info.run_id):
                yield replace(store, parent_run_id=outer.info.run_id)
            return
        if outer is not None and inside:
            store = replace(store, parent_run_id=outer.info.run_id)
        name = self.name or f"{type(search).__name__} {type(search.estimator).__name__}"
        run_id = runs.create_run(store, name, sweep_runs.ROLE_SEARCH)
        with runs.finishing(store, run_id):
            yield replace(store, parent_run_id=run_id)

    def _store(self, outer: Any) -> StoreSpec:
        """Open the store; its experiment is, unless named, that of the run around."""
        experiment = self.experiment
        if experiment is None and self.tracking_uri in (None, mlflow.get_tracking_uri()):
            client = MlflowClient()
            chosen = outer.info.experiment_id if outer else os.environ.get("MLFLOW_EXPERIMENT_ID")
            with suppress(MlflowException):  # an id that another store gave
                experiment = client.get_experiment(chosen).name if chosen else None
        return open_store(experiment, self.tracking_uri)


def _outer_run() -> Any:
    """Return the active run, else that of ``mlflow run``, else None."""
    active = mlflow.active_run()
    run_id = active.info.run_id if active else outer_run_id()
    if run_id is None:
        return None
    try:
        return MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise TrackingError(
            f"the active run is none of this store: {first_line(error)}; end it first"
        ) from error


def _is_free(run: Any) -> bool:
    """Tell whether a run holds no search, study or model yet."""
    return names.TAG_ROLE not in run.data.tags


@contextmanager
def _adopted(store: StoreSpec, run_id: str) -> Iterator[None]:
    """Note the reason of a failure; the status is its owner's, but a Ctrl-C kills the run."""
    client = MlflowClient(store.tracking_uri)
    try:
        yield
    except KeyboardInterrupt:
        client.set_tag(run_id, names.TAG_FAILURE, "interrupted by the user")
        active = mlflow.active_run()
        if active is not None and active.info.run_id == run_id:
            mlflow.end_run("KILLED")
        else:
            client.set_terminated(run_id, "KILLED")
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        client.set_tag(run_id, names.TAG_FAILURE, reason[: runs.MAX_REASON])
        raise


@contextmanager
def _same_tracking_uri() -> Iterator[None]:
    """Leave MLflow's tracking URI as it was."""
    before = mlflow.get_tracking_uri()
    try:
        yield
    finally:
        if mlflow.get_tracking_uri() != before:
            mlflow.set_tracking_uri(before)


@contextmanager
def _active(store: StoreSpec) -> Iterator[None]:
    """Make the search's run the active one, whatever experiment MLflow is set to."""
    active, chosen = mlflow.active_run(), os.environ.get("MLFLOW_EXPERIMENT_ID")
    if active is not None and active.info.run_id == store.parent_run_id:
        yield
        return
    other = chosen is not None and chosen != store.experiment_id
    if other:
        mlflow.set_experiment(experiment_id=store.experiment_id)
    try:
        with mlflow.start_run(run_id=store.parent_run_id, nested=True):
            yield
    finally:
        if other:
            mlflow.set_experiment(experiment_id=chosen)
