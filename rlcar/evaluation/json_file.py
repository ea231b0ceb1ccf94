"""Writes results as JSON, which has neither NaN nor infinities."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcar.system import durable


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Writes a tree, completely or not at all; a number that is not finite becomes null."""
    durable.replace_text(path, json.dumps(finite_tree(tree), indent=2, allow_nan=False) + "\n")


def finite_tree(tree: Any) -> Any:
    """Returns the tree with None for every NaN and infinity, which JSON does not have."""
    if isinstance(tree, Mapping):
        return {str(name): finite_tree(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite_tree(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    return tree
