"""What the API server checks in the objects of the fake one: names, and the fields of a RayJob."""

import re
from typing import Any

from tests.support.kubernetes.store import ApiError, Key, Store

Json = dict[str, Any]
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character"
)
# The fields of KubeRay 1.7's RayJob, with the type that its schema demands.
_RAY_JOB = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "clusterSelector": dict,
    "deletionStrategy": dict,
    "entrypoint": str,
    "entrypointNumCpus": (int, float),
    "entrypointNumGpus": (int, float),
    "entrypointResources": str,
    "jobId": str,
    "managedBy": str,
    "metadata": dict,
    "preRunningDeadlineSeconds": int,
    "rayClusterSpec": dict,
    "runtimeEnvYAML": str,
    "shutdownAfterJobFinishes": bool,
    "submissionMode": str,
    "submitterConfig": dict,
    "submitterPodTemplate": dict,
    "suspend": bool,
    "ttlSecondsAfterFinished": int,
}
_TYPE_NAMES = {int: "integer", str: "string", bool: "boolean", dict: "object"}


def check(key: Key, body: Json, *, is_strict: bool) -> None:
    """Raises ApiError for an object that the real server refuses."""
    spec = body.get("spec") or {}
    if key.plural == "rayjobs" and is_strict:
        unknown = ", ".join(f'unknown field "spec.{name}"' for name in spec if name not in _RAY_JOB)
        if unknown:
            message = (
                'RayJob in version "v1" cannot be handled as a RayJob: strict decoding error: '
                f"{unknown}"
            )
            raise ApiError(400, "BadRequest", message)
    causes = []
    if not _SUBDOMAIN.fullmatch(key.name):
        message = f'Invalid value: "{key.name}": {_NAME_MESSAGE}'
        causes.append(_cause("FieldValueInvalid", "metadata.name", message))
    if key.plural == "rayjobs":
        causes += [
            _wrong_type(name, value, _RAY_JOB[name])
            for name, value in spec.items()
            if name in _RAY_JOB and not _is(value, _RAY_JOB[name])
        ]
    if causes:
        listed = ", ".join(f"{cause['field']}: {cause['message']}" for cause in causes)
        kind = "RayJob.ray.io" if key.plural == "rayjobs" else key.plural
        message = f'{kind} "{key.name}" is invalid: {listed}'
        raise ApiError(422, "Invalid", message, name=key.name, causes=causes)


def check_quota(store: Store, key: Key) -> None:
    """Raises ApiError if a quota of the namespace allows no further object of this kind."""
    counted = f"count/{key.plural}.{key.group}"
    for quota in store.select("", "resourcequotas", key.namespace):
        limit = (quota.get("spec") or {}).get("hard", {}).get(counted)
        used = len(store.select(key.group, key.plural, key.namespace))
        if limit is not None and used >= int(limit):
            message = (
                f'{key.plural}.{key.group} "{key.name}" is forbidden: exceeded quota: '
                f"{quota['metadata']['name']}, requested: {counted}=1, used: {counted}={used}, "
                f"limited: {counted}={limit}"
            )
            raise ApiError(403, "Forbidden", message, name=key.name)


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, wanted)


def _wrong_type(name: str, value: Any, wanted: Any) -> Json:
    expected = _TYPE_NAMES.get(wanted, "number")
    found = _TYPE_NAMES.get(type(value), "array")
    message = f'Invalid value: "{found}": spec.{name} in body must be of type {expected}: "{found}"'
    return _cause("FieldValueTypeInvalid", f"spec.{name}", message)


def _cause(reason: str, field: str, message: str) -> Json:
    return {"reason": reason, "message": message, "field": field}
