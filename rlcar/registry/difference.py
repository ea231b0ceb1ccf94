"""What differs between the metadata of two versions."""

from collections.abc import Mapping
from typing import Any

from rlcar.registry.version import Version


def difference(one: Version, other: Version) -> dict[str, tuple[Any, Any]]:
    """Returns the two values of each entry that is not the same in both, by its dotted name."""
    first, second = _flat(one.metadata), _flat(other.metadata)
    names = sorted(first.keys() | second.keys())
    pairs = {name: (first.get(name), second.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found
