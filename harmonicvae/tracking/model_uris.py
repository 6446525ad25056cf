"""From a URI to the stored model it names: registered version, logged model and training run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from harmonicvae import names
from harmonicvae.exceptions import InputError, TrackingError
from harmonicvae.tracking.stores import first_line

_FORMS = (
    "models:/name/1, models:/name/latest, models:/name@alias, models:/m-…, runs:/id or "
    "runs:/id/model"
)
#: Roles of runs that train no model.
_OTHER_ROLES = ("study", "evaluation", "comparison")


@dataclass(frozen=True, kw_only=True)
class ModelReference:
    """What a URI names.  Whatever an earlier version did not store is "".

    Parameters
    ----------
    uri : str
        As it was asked for.
    name, version : str
        Registered model and version.
    model_id : str
        Logged model, ``m-…``.
    run_id : str
        Run that trained it.
    source : str
        Where the registered version's files are.
    created : int
        Milliseconds since 1970; 0 if unknown.
    tags : dict
        Of the registered version.
    """

    uri: str
    name: str = ""
    version: str = ""
    model_id: str = ""
    run_id: str = ""
    source: str = ""
    created: int = 0
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How tables call it: ``name/version``, else the start of the model's or run's id.

        Examples
        --------
        >>> ModelReference(uri="models:/a@b", name="a", version="3").label
        'a/3'
        """
        if self.version:
            return f"{self.name}/{self.version}"
        return self.model_id[:10] or f"run {self.run_id[:8]}"

    @property
    def stable_uri(self) -> str:
        """A URI that means the same model for ever, other than an alias.

        Examples
        --------
        >>> ModelReference(uri="models:/a@b", name="a", version="3").stable_uri
        'models:/a/3'
        """
        if self.version:
            return f"models:/{self.name}/{self.version}"
        if self.model_id:
            return f"models:/{self.model_id}"
        return f"runs:/{self.run_id}/{names.ARTIFACT_MODEL}"

    @property
    def key(self) -> tuple[str, str]:
        """Equal for two URIs of one model."""
        return (self.model_id, "") if self.model_id else (self.label, self.run_id)


def resolve(client: MlflowClient, uri: str) -> ModelReference:
    """Find the model that a URI names.

    Parameters
    ----------
    client : MlflowClient
    uri : str
        ``models:/name/1``, ``models:/name/latest``, ``models:/name@alias``, ``models:/m-…``,
        ``runs:/id`` or ``runs:/id/model``.

    Returns
    -------
    ModelReference
        A model named by its run or id is looked up in the registry: with several versions of
        it, the newest is taken.

    Raises
    ------
    InputError
        If the URI has another form, or names a run that trained no model.
    TrackingError
        If there is no such model.
    """
    text = uri if isinstance(uri, str) else repr(uri)
    match = re.fullmatch(
        r"models:/(?P<model_id>m-[^/@]+)|models:/(?P<name>[^/@]+)(?:/(?P<version>\d+|latest)"
        r"|@(?P<alias>[^/@]+))|runs:/(?P<run>[^/@]+)(?:/(?P<path>.+))?",
        text,
    )
    if match is None:
        raise InputError(f"a model's uri must look like {_FORMS}; got {uri!r}")
    try:
        if match["run"]:
            return _of_run(client, uri, match["run"], match["path"])
        if match["model_id"]:
            return _of_id(client, uri, match["model_id"])
        return _of_version(client, uri, match["name"], match["version"], match["alias"])
    except MlflowException as error:
        raise TrackingError(f"no model at {uri!r}: {first_line(error)}") from error


def from_version(version: Any, uri: str = "") -> ModelReference:
    """Return the reference of a registered version as MLflow's client returns it."""
    source = version.source or ""
    linked = re.fullmatch(r"models:/(m-[^/]+)/?|.*/models/(m-[0-9a-f]{32})/artifacts/?", source)
    model_id = version.model_id or (linked and (linked[1] or linked[2])) or ""
    return ModelReference(
        uri=uri or f"models:/{version.name}/{version.version}",
        name=version.name,
        version=str(version.version),
        model_id=model_id,
        run_id=version.run_id or "",
        source=source,
        created=int(version.creation_timestamp or 0),
        tags=dict(version.tags or {}),
    )


def versions_of(client: MlflowClient, condition: str) -> Iterator[ModelReference]:
    """Yield the registered versions that meet a filter of MLflow's, in its pages."""
    token = None
    while True:
        page = client.search_model_versions(condition, page_token=token)
        yield from map(from_version, page)
        token = getattr(page, "token", None)
        if not token:
            return


def _of_version(
    client: MlflowClient, uri: str, name: str, version: str | None, alias: str | None
) -> ModelReference:
    if alias:
        return from_version(client.get_model_version_by_alias(name, alias), uri)
    if version == "latest":
        found = max(versions_of(client, f"name='{_quoted(name)}'"), key=_rank, default=None)
        if found is None:
            raise TrackingError(f"no model at {uri!r}: {name!r} has no version")
        version = found.version
    return from_version(client.get_model_version(name, str(version)), uri)


def _of_id(client: MlflowClient, uri: str, model_id: str) -> ModelReference:
    model = client.get_logged_model(model_id)
    run_id = model.source_run_id or ""
    versions = versions_of(client, f"run_id='{_quoted(run_id)}'") if run_id else iter(())
    own = [item for item in versions if item.model_id == model_id]
    created = int(model.creation_timestamp or 0)
    if own:
        newest = max(own, key=_rank)
        return ModelReference(**{**vars(newest), "uri": uri, "run_id": run_id})
    return ModelReference(uri=uri, model_id=model_id, run_id=run_id, created=created)


def _of_run(client: MlflowClient, uri: str, run_id: str, path: str | None) -> ModelReference:
    run = client.get_run(run_id)
    role = run.data.tags.get(names.TAG_ROLE, "")
    if role in _OTHER_ROLES:
        raise InputError(f"{uri!r} is the run of a {role}, not of a model's training")
    model_id = _output(client, run, path or names.ARTIFACT_MODEL)
    if model_id:
        return _of_id(client, uri, model_id)
    own = list(versions_of(client, f"run_id='{_quoted(run_id)}'"))
    if own:
        return ModelReference(**{**vars(max(own, key=_rank)), "uri": uri})
    return ModelReference(uri=uri, run_id=run_id, created=int(run.info.start_time or 0))


def _output(client: MlflowClient, run: Any, path: str) -> str:
    """Return the id of the run's logged model of that name, the only one, or ""."""
    outputs = run.outputs.model_outputs if run.outputs else []
    ids = [item.model_id for item in outputs]
    if len(ids) == 1:
        return ids[0]
    for model_id in reversed(ids):
        with suppress(MlflowException):
            if client.get_logged_model(model_id).name == path:
                return model_id
    return ""


def _rank(reference: ModelReference) -> tuple[int, int]:
    return int(reference.version or 0), reference.created


def _quoted(text: str) -> str:
    """Return text for the inside of a filter's quotes."""
    return text.replace("'", "''")
