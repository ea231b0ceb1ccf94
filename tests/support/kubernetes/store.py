"""The objects of the fake API server: versions, watches and server-side apply."""

import copy
import datetime
import itertools
import threading
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

Json = dict[str, Any]


class Key(NamedTuple):
    """Where an object lies."""

    group: str
    plural: str
    namespace: str  # empty for cluster-wide objects
    name: str


class Change(NamedTuple):
    """One entry of the history that watches read."""

    version: int
    kind: str  # ADDED, MODIFIED, DELETED
    key: Key
    object: Json


class ApiError(Exception):
    """An answer with an error, as the real API server words it."""

    def __init__(self, code: int, reason: str, message: str, **details: Any):
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details


class Store:
    """All objects with a common counter of versions, as etcd has it."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._objects: dict[Key, Json] = {}
        self._versions = itertools.count(1000)
        self._history: list[Change] = []
        self.oldest = 1000  # version from which watches may begin
        self.newest = 1000

    def get(self, key: Key) -> Json:
        """Returns a copy of an object."""
        with self.changed:
            if key not in self._objects:
                raise not_found(key)
            return copy.deepcopy(self._objects[key])

    def select(self, group: str, plural: str, namespace: str | None) -> list[Json]:
        """Returns copies of the objects of a kind, in the order of their names."""
        with self.changed:
            keys = sorted(
                key
                for key in self._objects
                if (key.group, key.plural) == (group, plural) and namespace in (None, key.namespace)
            )
            return [copy.deepcopy(self._objects[key]) for key in keys]

    def create(self, key: Key, body: Json, manager: str) -> Json:
        """Adds an object."""
        with self.changed:
            if key in self._objects:
                name = qualified(key)
                raise ApiError(
                    409, "AlreadyExists", f'{name} "{key.name}" already exists', **_about(key)
                )
            fresh = copy.deepcopy(body)
            now = datetime.datetime.now(datetime.UTC)
            fresh.setdefault("metadata", {}).update(
                name=key.name, uid=str(uuid.uuid4()), creationTimestamp=f"{now:%Y-%m-%dT%H:%M:%SZ}"
            )
            if key.namespace:
                fresh["metadata"]["namespace"] = key.namespace
            _own(fresh, manager, "Update", leaves(_spec_of(body)))
            return self._write(key, fresh, "ADDED")

    def update(self, key: Key, changed: Json, manager: str) -> Json:
        """Replaces an object; refuses one that is based on an older version."""
        with self.changed:
            present = self.get(key)
            based_on = (changed.get("metadata") or {}).get("resourceVersion")
            if based_on and based_on != present["metadata"]["resourceVersion"]:
                raise ApiError(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {qualified(key)} "{key.name}": the object '
                    "has been modified; please apply your changes to the latest version and try "
                    "again",
                    **_about(key),
                )
            before, after = leaves(_spec_of(present)), leaves(_spec_of(changed))
            different = {path: after[path] for path in after if before.get(path) != after[path]}
            if different:
                _own(changed, manager, "Update", different)
            return self._write(key, changed, "MODIFIED")

    def apply(self, key: Key, body: Json, manager: str, *, force: bool) -> Json:
        """Merges an object by server-side apply, and refuses fields that others own."""
        with self.changed:
            if key not in self._objects:
                created = self.create(key, body, manager)
                _own(created, manager, "Apply", leaves(_spec_of(body)))
                return self._write(key, created, "MODIFIED")
            present = self.get(key)
            wanted, there = leaves(_spec_of(body)), leaves(_spec_of(present))
            causes = [
                {
                    "reason": "FieldManagerConflict",
                    "message": f'conflict with "{owner["manager"]}" using {body["apiVersion"]}',
                    "field": path,
                }
                for owner in present["metadata"].get("managedFields", [])
                for path in owner["paths"]
                if (owner["manager"], owner["operation"]) != (manager, "Apply")
                and path in wanted
                and wanted[path] != there.get(path)
            ]
            if causes and not force:
                raise ApiError(
                    409,
                    "Conflict",
                    f"Apply failed with {len(causes)} conflict(s)",
                    causes=causes,
                )
            merged = _merged(present, body)
            # Equal values are owned together.
            changed = {path for path in wanted if wanted[path] != there.get(path)}
            _own(merged, manager, "Apply", wanted, changed)
            return self._write(key, merged, "MODIFIED")

    def delete(self, key: Key) -> Json:
        """Removes an object and what it owns; with finalizers only marks it."""
        with self.changed:
            there = self.get(key)
            if there["metadata"].get("finalizers"):
                there["metadata"]["deletionTimestamp"] = there["metadata"]["creationTimestamp"]
                return self._write(key, there, "MODIFIED")
            del self._objects[key]
            self._record("DELETED", key, there)
            for other, found in list(self._objects.items()):
                owners = found["metadata"].get("ownerReferences") or []
                if other in self._objects and there["metadata"]["uid"] in [
                    o["uid"] for o in owners
                ]:
                    self.delete(other)
            return there

    def compact(self) -> None:
        """Forgets all changes so far: watches that begin before now are refused with 410."""
        with self.changed:
            self.oldest = self.newest
            self._history.clear()

    def changes(self, after: int, seconds: float) -> Iterator[Change]:
        """Yields the changes after a version, for some seconds."""
        end = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
        while True:
            with self.changed:
                fresh = [change for change in self._history if change.version > after]
                left_s = (end - datetime.datetime.now()).total_seconds()
                if not fresh:
                    if left_s <= 0:
                        return
                    self.changed.wait(min(left_s, 0.5))
                    continue
            for change in fresh:
                after = change.version
                yield change

    def _write(self, key: Key, fresh: Json, kind: str) -> Json:
        fresh["metadata"].pop("resourceVersion", None)
        self._objects[key] = fresh
        self._record(kind, key, fresh)
        if fresh["metadata"].get("deletionTimestamp") and not fresh["metadata"].get("finalizers"):
            self.delete(key)
        return copy.deepcopy(fresh)

    def _record(self, kind: str, key: Key, found: Json) -> None:
        self.newest = next(self._versions) + 1
        found["metadata"]["resourceVersion"] = str(self.newest)
        self._history.append(Change(self.newest, kind, key, copy.deepcopy(found)))
        self.changed.notify_all()


def qualified(key: Key) -> str:
    """Returns the kind as messages name it, such as rayjobs.ray.io."""
    return f"{key.plural}.{key.group}" if key.group else key.plural


def not_found(key: Key) -> ApiError:
    """Returns the error for an object that does not exist."""
    message = f'{qualified(key)} "{key.name}" not found'
    return ApiError(404, "NotFound", message, **_about(key))


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Returns the fields of an object, each with its path; lists count as one field."""
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= leaves(inner, f"{path}.{name}")
    return found


def _about(key: Key) -> Json:
    return {"name": key.name, "group": key.group, "kind": key.plural}


def _spec_of(body: Json) -> Json:
    """Returns what managers can own."""
    metadata = body.get("metadata") or {}
    owned = {name: metadata[name] for name in ("labels", "annotations") if name in metadata}
    found = {name: body[name] for name in ("spec", "data") if name in body}
    return found | ({"metadata": owned} if owned else {})


def _own(
    found: Json, manager: str, operation: str, paths: Json, changed: set[str] | None = None
) -> None:
    """Records that a manager has set fields; nobody else owns those any more that it changed."""
    changed = set(paths) if changed is None else changed
    entries = [dict(entry) for entry in found["metadata"].get("managedFields", [])]
    for entry in entries:
        entry["paths"] = [path for path in entry["paths"] if path not in changed]
    mine = next(
        (e for e in entries if (e["manager"], e["operation"]) == (manager, operation)), None
    )
    if mine is None:
        mine = {"manager": manager, "operation": operation, "paths": []}
        entries.append(mine)
    mine["paths"] = sorted({*mine["paths"], *paths})
    found["metadata"]["managedFields"] = [entry for entry in entries if entry["paths"]]


def _merged(into: Json, body: Json) -> Json:
    result = copy.deepcopy(into)
    for name, value in body.items():
        if isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = _merged(result[name], value)
        else:
            result[name] = copy.deepcopy(value)
    return result
