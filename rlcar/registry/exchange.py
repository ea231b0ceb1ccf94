"""Exports a version as one safetensors file, and imports such files and legacy pickles."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcar.errors import RegistryError, reason_of
from rlcar.registry.architecture import check_arrays
from rlcar.registry.legacy import MAX_PICKLE_BYTES, read_pickle
from rlcar.registry.metadata import check_metadata
from rlcar.registry.model_file import MAX_FILE_BYTES, Arrays, model_bytes, parse_json, parse_model
from rlcar.registry.version import Model, sha256
from rlcar.system.regular_file import read_regular

_KEY = "rlcar"
_PICKLE_ENDINGS = (".pkl", ".pickle", ".p")


def exported_bytes(model: Model, report: bytes | None) -> bytes:
    """Returns a safetensors file with the arrays; its metadata holds the version's description."""
    about = {"metadata": model.version.metadata, "number": model.version.number}
    if report is not None:
        about["report"] = json.loads(report)
    return model_bytes(model.arrays, {_KEY: json.dumps(about, allow_nan=False)})


def imported(path: Path, description: str) -> tuple[Arrays, dict[str, Any], Any]:
    """Reads an exported file, or a legacy pickle; returns arrays, metadata and the report.

    Raises RegistryError, with one sentence, for any other file.
    """
    try:
        return _imported(path, description)
    except RegistryError as error:  # its text may quote the file, so it is made printable
        text = "".join(letter if letter.isprintable() else "?" for letter in str(error))
        raise RegistryError(text[:500]) from None


def _imported(path: Path, description: str) -> tuple[Arrays, dict[str, Any], Any]:
    is_pickle = path.suffix.lower() in _PICKLE_ENDINGS
    data = _read(path, MAX_PICKLE_BYTES if is_pickle else MAX_FILE_BYTES)
    if is_pickle:
        arrays, metadata = read_pickle(data, path.name)
        report = None
    else:
        arrays, about = parse_model(data, path.name)
        metadata, report = _about(about, path.name)
    lineage = {**metadata["lineage"], "imported": f"{path.name[:100]} {sha256(data)}"}
    metadata = {**metadata, "lineage": {**lineage, "parent": None}}
    if description:
        metadata["description"] = description
    metadata = check_metadata(metadata, path.name)
    check_arrays(metadata, arrays, path.name)
    return arrays, metadata, report


def _about(about: Mapping[str, str], name: str) -> tuple[dict[str, Any], Any]:
    if _KEY not in about:
        raise RegistryError(
            f"{name} does not describe its policy: import a file that `rlcar models export` wrote"
        )
    try:
        tree = parse_json(about[_KEY].encode(), "its metadata")
        metadata, report = tree["metadata"], tree.get("report")
        if not isinstance(metadata["lineage"], dict) or not isinstance(report, dict | None):
            raise TypeError
        return metadata, report
    except ValueError as error:
        raise RegistryError(f"{name} is not a model that can be read: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise RegistryError(f"{name} does not describe its policy as an export does") from None


def _read(path: Path, limit_bytes: int) -> bytes:
    """Reads a regular file of bounded size; links and devices are refused, without waiting."""
    try:
        return read_regular(path, limit_bytes, follow_links=False)
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise RegistryError(f"cannot read {path}: {reason}") from None
