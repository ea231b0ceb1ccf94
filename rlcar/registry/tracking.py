"""Copies versions, aliases, rollouts and pipelines to experiment trackers, beside their runs.

Everything may be copied again: what is there already is only brought up to date.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rlcar.config.sections import TrackingConfig
from rlcar.registry.registry import Registry
from rlcar.registry.version import Version, folder_of
from rlcar.runs.tracking import mlflow_tracker, wandb_tracker
from rlcar.runs.tracking.open import mlflow_uri, texts_in
from rlcar.runs.tracking.tracker import PREFIX
from rlcar.system import durable

_REGISTRY, _VERSION = f"{PREFIX}registry", f"{PREFIX}version"
_LINEAGE = ("run", "checkpoint", "parent", "data", "commit")
_ALIAS = f"{PREFIX}alias."  # of the tags of a model of MLflow: the registry that gave it an alias
_RESERVED = re.compile(r"v\d+")  # names of aliases that MLflow refuses
_COPIED = "copied-from-registries.json"  # in the folder of W&B: what it has, as checksums

Say = Callable[[str], None]


class TrackedEvent(NamedTuple):
    """What a tracker is told about a rollout, or about a run of a pipeline."""

    kind: Literal["rollout", "pipeline"]
    name: str  # which no other event of this kind in the registry has
    status: str
    ended_s: float | None  # Unix time; None while it is open
    is_good: bool
    began_s: float  # Unix time
    candidate: int | None  # its version, if there is one yet
    details: dict[str, str]
    metrics: dict[str, float]

    def tags(self, registry: Registry) -> dict[str, str]:
        """Returns the tags of the event."""
        known = {self.kind: self.name, "status": self.status, **self.details}
        if self.candidate is not None:
            known["candidate"] = str(self.candidate)
        return {_REGISTRY: registry.place} | {f"{PREFIX}{key}": one for key, one in known.items()}


def track_registry(
    registry: Registry,
    settings: TrackingConfig,
    events: Sequence[TrackedEvent],
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
        copy = _MlflowCopy(uri, settings.project, registry, say)
        mlflow_tracker.explaining(lambda: copy.all(versions, events))
        say(f"MLflow has {_counted(versions, events)}")
    if wandb_tracker.EXTRA in settings.trackers:
        _copy_to_wandb(registry, settings.project, versions, events, folder)
        say(f"Weights & Biases has {_counted(versions, events)}")


def tags_of_version(registry: Registry, version: Version) -> dict[str, str]:
    """Returns where a version comes from; unknown parts are left out."""
    lineage = version.metadata["lineage"]
    known = {f"{PREFIX}{name}": lineage.get(name) for name in _LINEAGE}
    found = {name: str(value) for name, value in known.items() if value is not None}
    return {_REGISTRY: registry.place, _VERSION: str(version.number), **found}


def _counted(versions: Sequence[Version], events: Sequence[TrackedEvent]) -> str:
    rollouts = sum(one.kind == "rollout" for one in events)
    parts = {"version": len(versions), "rollout": rollouts, "pipeline run": len(events) - rollouts}
    return ", ".join(f"{count} {what}{'s' * (count != 1)}" for what, count in parts.items())


class _MlflowCopy:
    """Writes to one experiment and one registered model of MLflow."""

    def __init__(self, uri: str, project: str, registry: Registry, say: Say):
        self._client = mlflow_tracker.connect(uri)
        self._project, self._registry, self._say = project, registry, say

    def all(self, versions: Sequence[Version], events: Sequence[TrackedEvent]) -> None:
        """Copies versions, then the aliases that point at them, and events."""
        self._experiment = mlflow_tracker.experiment_of(self._client, self._project)
        known = self._known_versions()
        for version in versions:
            if version.number not in known:
                known[version.number] = self._add(version)
        self._copy_aliases(known)
        for one in events:
            self._write_event(one)
            if one.candidate in known:
                name = f"{PREFIX}{one.kind}.{one.name}"
                candidate = known[one.candidate]
                self._client.set_model_version_tag(self._project, candidate, name, one.status)

    def _copy_aliases(self, known: Mapping[int, str]) -> None:
        """Sets the aliases of the registry, and removes those that it had before."""
        aliases = self._registry.aliases()
        for alias, number in aliases.items():
            if _RESERVED.fullmatch(alias):
                self._say(f"MLflow has no alias {alias}, because it reserves such names")
            elif number in known:
                self._client.set_registered_model_alias(self._project, alias, known[number])
                self._client.set_registered_model_tag(
                    self._project, f"{_ALIAS}{alias}", self._registry.place
                )
        there = self._client.get_registered_model(self._project)
        for tag, place in there.tags.items():
            alias = tag.removeprefix(_ALIAS)
            # An alias of another registry, or one that a person has set, stays.
            if alias == tag or place != self._registry.place or alias in aliases:
                continue
            if str(there.aliases.get(alias)) in known.values():
                self._client.delete_registered_model_alias(self._project, alias)
            self._client.delete_registered_model_tag(self._project, tag)

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

    def _write_event(self, one: TrackedEvent) -> None:
        from mlflow.entities import Metric, RunTag

        tags = one.tags(self._registry)
        began_ms = int(1e3 * one.began_s)
        found = self._runs(f"{PREFIX}{one.kind}", one.name)
        if found:
            info = found[0].info
        else:
            name = f"{one.kind} {one.name}"
            info = self._client.create_run(self._experiment, began_ms, tags, name).info
        self._client.log_batch(
            info.run_id,
            metrics=[Metric(name, value, began_ms, 0) for name, value in one.metrics.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        if one.ended_s is not None:
            end = ("FINISHED" if one.is_good else "FAILED", int(1e3 * one.ended_s))
            if (info.status, info.end_time) != end:
                self._client.set_terminated(info.run_id, *end)

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
    events: Sequence[TrackedEvent],
    folder: Path,
) -> None:
    aliases = registry.aliases()
    copy = _WandbCopy(folder, project, registry)
    for version in versions:
        own = [alias for alias, number in aliases.items() if number == version.number]
        tags = tags_of_version(registry, version) | {f"{PREFIX}aliases": ", ".join(own)}
        copy.write("version", str(version.number), tags)
    for one in events:
        copy.write(one.kind, one.name, one.tags(registry), one.metrics)


class _WandbCopy:
    """Writes a run of W&B for each version and event; their identity never changes.

    Each time that a run is begun offline adds a folder, so what has not changed since it was
    written is left out. The folder of W&B holds a file about that; without it everything is written
    again.
    """

    def __init__(self, folder: Path, project: str, registry: Registry):
        self._folder, self._project, self._registry = folder, project, registry
        self._mode = wandb_tracker.mode_of(folder)
        self._file = folder / "wandb" / _COPIED
        self._copied = texts_in(self._file)

    def write(
        self,
        kind: str,
        name: str,
        tags: Mapping[str, str],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Writes a run unless W&B has it as it is."""
        identity = _sha256(f"{self._registry.place} {kind} {name}")[:32]
        key = f"{self._project}/{identity}"
        content = _sha256(json.dumps([self._mode, tags, metrics], sort_keys=True))
        if self._copied.get(key) == content:
            return
        title = f"{kind} {name}"
        run = wandb_tracker.begin(
            self._folder, self._project, identity, title, tags, kind, self._mode
        )
        run.config.update(dict(tags), allow_val_change=True)
        run.summary.update(dict(metrics or {}))
        run.finish(exit_code=0)
        self._copied[key] = content
        with durable.explaining_write_errors(self._file):
            self._file.parent.mkdir(exist_ok=True)
            durable.replace_text(self._file, json.dumps(self._copied, indent=2) + "\n")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
