"""JSON patches and merge patches, as the API server applies them."""

import copy
from typing import Any

from tests.support.kubernetes.store import ApiError

Json = dict[str, Any]


def json_patched(found: Json, operations: list[Json]) -> Json:
    """Returns an object after the operations of a JSON patch (RFC 6902)."""
    result = copy.deepcopy(found)
    for operation in operations:
        *path, last = [
            word.replace("~1", "/").replace("~0", "~") for word in operation["path"].split("/")[1:]
        ]
        parent: Any = result
        try:
            for word in path:
                parent = parent[int(word)] if isinstance(parent, list) else parent[word]
            _change(parent, last, operation)
        except (KeyError, IndexError, ValueError, TypeError):
            message = "the server rejected our request due to an error in our request"
            raise ApiError(422, "Invalid", message) from None
    return result


def _change(parent: Any, last: str, operation: Json) -> None:
    at: Any = int(last) if isinstance(parent, list) else last
    kind = operation["op"]
    if kind in ("replace", "remove", "test"):
        there = parent[at]
        if kind == "test" and there != operation["value"]:
            raise ValueError
        if kind == "remove":
            del parent[at]
    if kind == "replace" or (kind == "add" and isinstance(parent, dict)):
        parent[at] = operation["value"]
    elif kind == "add":
        parent.insert(at, operation["value"])


def merge_patched(found: Any, patch: Any) -> Any:
    """Returns an object after a merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(found) if isinstance(found, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patched(result.get(name), value)
    return result
