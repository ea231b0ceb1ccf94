"""Copies versions, aliases and rollouts to experiment trackers, beside the runs they came from.

Everything may be copied again: what is there already is only brought up to date.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlcar.config.sections import TrackingConfig
from rlcar.registry.registry import Registry
from rlcar.registry.version import Version, folder_of
from rlcar.runs.tracking import mlflow_tracker, wandb_tracker
from rlcar.runs.tracking.open import mlflow_uri
from rlcar.runs.tracking.tracker import PREFIX

_REGISTRY, _VERSION, _ROLLOUT = f"{PREFIX}registry", f"{PREFIX}version", f"{PREFIX}rollout"
_LINEAGE = ("run", "checkpoint", "parent", "data", "commit")

Say = Callable[[str], None]


class TrackedRollout(NamedTuple):
    """What a tracker is told about a rollout."""

    rollout: str
    stable: int
    candidate: int
    phase: str
    is_over: bool
    message: str
    started_s: float  # Unix time


def track_registry(
    registry: Registry,
    settings: TrackingConfig,
    rollouts: Sequence[TrackedRollout],
    folder: Path,
    say: Say = lambda text: None,
) -> None:
    """Copies everything to the trackers of the settings; raises TrackingError if one refuses.

    Without an address of MLflow its database is in `folder`, where also the files of Weights &
    Biases are.
    """
    versions = list(reversed(registry.versions()))
    if mlflow_tracker.EXTRA in settings.trackers:
        uri = mlflow_uri(settings.mlflow_uri, folder)
        copy = _MlflowCopy(uri, settings.project, registry)
        mlflow_tracker.explaining(lambda: copy.all(versions, rollouts))
        say(f"MLflow has {len(versions)} versions and {len(rollouts)} rollouts")
    if wandb_tracker.EXTRA in settings.trackers:
        _copy_to_wandb(registry, settings.project, versions, rollouts, folder)
        say(f"Weights & Biases has {len(versions)} versions and {len(rollouts)} rollouts")


def tags_of_version(registry: Registry, version: Version) -> dict[str, str]:
    """Returns where a version comes from; unknown parts are left out."""
    lineage = version.metadata["lineage"]
    known = {f"{PREFIX}{name}": lineage.get(name) for name in _LINEAGE}
    found = {name: str(value) for name, value in known.items() if value is not None}
    return {_REGISTRY: registry.place, _VERSION: str(version.number), **found}


def tags_of_rollout(registry: Registry, one: TrackedRollout) -> dict[str, str]:
    """Returns what a rollout compares, and how it stands."""
    return {
        _REGISTRY: registry.place,
        _ROLLOUT: one.rollout,
        f"{PREFIX}stable": str(one.stable),
        f"{PREFIX}candidate": str(one.candidate),
        f"{PREFIX}phase": one.phase,
        f"{PREFIX}message": one.message,
    }


class _MlflowCopy:
    """Writes to one experiment and one registered model of MLflow."""

    def __init__(self, uri: str, project: str, registry: Registry):
        self._client = mlflow_tracker.connect(uri)
        self._project, self._registry = project, registry

    def all(self, versions: Sequence[Version], rollouts: Sequence[TrackedRollout]) -> None:
        """Copies versions, then the aliases that point at them, and rollouts."""
        self._experiment = mlflow_tracker.experiment_of(self._client, self._project)
        known = self._known_versions()
        for version in versions:
            if version.number not in known:
                known[version.number] = self._add(version)
        for alias, number in self._registry.aliases().items():
            if number in known:
                self._client.set_registered_model_alias(self._project, alias, known[number])
        for one in rollouts:
            self._write_rollout(one)
            if one.candidate in known:
                self._client.set_model_version_tag(
                    self._project, known[one.candidate], f"{_ROLLOUT}.{one.rollout}", one.phase
                )

    def _known_versions(self) -> dict[int, str]:
        """Returns MLflow's number of each of our versions that it has."""
        if not self._client.search_registered_models(f"name = '{self._project}'"):
            self._client.create_registered_model(self._project)
            return {}
        found: dict[int, str] = {}
        token: str | None = None
        while token is None or token:
            page = self._client.search_model_versions(f"name = '{self._project}'", page_token=token)
            for one in page:
                if one.tags.get(_REGISTRY) == self._registry.place and _VERSION in one.tags:
                    found[int(one.tags[_VERSION])] = str(one.version)
            token = page.token or ""
        return found

    def _add(self, version: Version) -> str:
        """Adds a version, linked with the run that trained it; returns MLflow's number."""
        run = version.metadata["lineage"].get("run")
        trained = self._runs(f"{PREFIX}run", run) if run else []
        run_id = trained[0].info.run_id if trained else None
        place = self._registry.place
        source = f"{place if '://' in place else f'rlcar://{place}'}/{folder_of(version.number)}"
        added = self._client.create_model_version(
            self._project, source, run_id=run_id, tags=tags_of_version(self._registry, version),
            description=version.metadata["description"] or None,
        )  # fmt: skip
        if run_id is not None:
            self._client.set_tag(run_id, f"{_VERSION}.{version.number}", str(added.version))
        return str(added.version)

    def _write_rollout(self, one: TrackedRollout) -> None:
        tags = tags_of_rollout(self._registry, one)
        found = self._runs(_ROLLOUT, one.rollout)
        if found:
            run_id = found[0].info.run_id
            for name, value in tags.items():
                self._client.set_tag(run_id, name, value)
        else:
            start_ms = int(1e3 * one.started_s)
            name = f"rollout {one.rollout}"
            created = self._client.create_run(self._experiment, start_ms, tags, name)
            run_id = created.info.run_id
        if one.is_over:
            status = "FINISHED" if one.phase == "Healthy" else "FAILED"
            self._client.set_terminated(run_id, status)

    def _runs(self, tag: str, value: str) -> Sequence[Any]:
        """Returns the runs with a tag, the newest first."""
        if "'" in value:  # the language of filters cannot hold it
            return []
        found: Sequence[Any] = self._client.search_runs(
            [self._experiment], f"tags.`{tag}` = '{value}'", order_by=["start_time DESC"]
        )
        return found


def _copy_to_wandb(
    registry: Registry,
    project: str,
    versions: Sequence[Version],
    rollouts: Sequence[TrackedRollout],
    folder: Path,
) -> None:
    """Writes a run of W&B for each version and rollout; their identity never changes."""
    aliases = registry.aliases()
    for version in versions:
        own = [alias for alias, number in aliases.items() if number == version.number]
        tags = tags_of_version(registry, version) | {f"{PREFIX}aliases": ", ".join(own)}
        _write_to_wandb(folder, project, registry, "version", str(version.number), tags)
    for one in rollouts:
        tags = tags_of_rollout(registry, one)
        _write_to_wandb(folder, project, registry, "rollout", one.rollout, tags)


def _write_to_wandb(
    folder: Path, project: str, registry: Registry, kind: str, name: str, tags: Mapping[str, str]
) -> None:
    identity = hashlib.sha256(f"{registry.place} {kind} {name}".encode()).hexdigest()[:32]
    run = wandb_tracker.begin(folder, project, identity, f"{kind} {name}", tags, kind)
    run.config.update(dict(tags), allow_val_change=True)
    run.finish(exit_code=0)
