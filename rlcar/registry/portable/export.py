"""Writes the policy of a published version for programs without Python."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import rlcar
from rlcar.agents import algorithm_of
from rlcar.config import parse_config
from rlcar.config.schema import safe_action
from rlcar.errors import RegistryError
from rlcar.registry.architecture import what_is_not_numeric
from rlcar.registry.portable.c_file import c_bytes
from rlcar.registry.portable.onnx_file import onnx_bytes
from rlcar.registry.portable.recording import Graph, NotPortableError, record
from rlcar.registry.store import LocalStore
from rlcar.registry.version import POLICY, Model, Version

if TYPE_CHECKING:
    from rlcar.registry import Registry

FORMATS: dict[str, Callable[[Graph, dict[str, Any]], bytes]] = {"onnx": onnx_bytes, "c": c_bytes}


def export_policy(registry: "Registry", name: str | int, path: Path, format_: str) -> None:
    """Writes a version's policy in one of `FORMATS`, completely or not at all.

    An existing file is replaced. Raises UserError if the version does not exist, if its policy
    cannot be written in that format, or if a package for it is not installed.
    """
    LocalStore(path.parent).write(path.name, policy_bytes(registry.open(name), format_))


def policy_bytes(model: Model, format_: str) -> bytes:
    """Returns the file of a version's policy in one of `FORMATS`."""
    return FORMATS[format_](recorded(model), properties(model.version))


def recorded(model: Model) -> Graph:
    """Returns the policy as servers run it, as a graph.

    Raises RegistryError if it acts on images, with discrete actions, or cannot be recorded.
    """
    version, number = model.version, model.version.number
    config = parse_config(version.metadata["config"])
    reason = what_is_not_numeric(version.metadata, model.arrays, config)
    if reason is not None:
        raise RegistryError(
            f"version {number} acts in {config.world_label} {reason}: only policies with numeric "
            "observations and continuous actions can be written in this format; export it with "
            "--format safetensors"
        )
    with np.errstate(all="ignore"):  # a number that is not finite stays one
        network = algorithm_of(config).make_numpy_network(config.algorithm_settings, model.arrays)
    try:
        return record(network, len(version.metadata["observation"]), model.arrays)
    except NotPortableError as error:
        raise RegistryError(
            f"the policy of version {number} ({config.algorithm}) cannot be written in this "
            f"format: {error}; export it with --format safetensors"
        ) from error


def properties(version: Version) -> dict[str, Any]:
    """Returns what a file says about its origin, and about its inputs and outputs."""
    metadata = version.metadata
    lineage = metadata["lineage"]
    return {
        "version": str(version.number),
        "sha256": version.files[POLICY]["sha256"],  # of the version's policy.safetensors
        "created": version.created,
        "description": metadata["description"],
        "algorithm": metadata["algorithm"],
        "world": parse_config(metadata["config"]).world_label,
        "run": lineage["run"] or "",
        "commit": lineage["commit"] or "",
        "rlcar": rlcar.__version__,
        "observation": metadata["observation"],
        "action": metadata["action"],
        "safe_action": list(safe_action(metadata)),
    }
