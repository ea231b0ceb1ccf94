"""The description of a version, and the manifest that stores it."""

import hashlib
import json
import re
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from rlcar.errors import RegistryError
from rlcar.registry.metadata import check_metadata
from rlcar.registry.model_file import MAX_FILE_BYTES, parse_json
from rlcar.registry.store import Store

FORMAT_VERSION = 1
POLICY, REPORT, MANIFEST, DELETED = (
    "policy.safetensors",
    "report.json",
    "manifest.json",
    "deleted.json",
)
# Largest size of each file; larger ones are not read.
LIMITS_BYTES = {
    POLICY: MAX_FILE_BYTES,
    REPORT: 1 << 26,
    MANIFEST: 1 << 24,
    DELETED: 1 << 16,
}
MAX_NUMBER = 99_999_999
_FOLDER = re.compile(r"(\d{8})/.+")


class Version(NamedTuple):
    """One published model; only its aliases ever change.

    `metadata` has the fields of `rlcar.registry.metadata.Metadata`: description, algorithm, config,
    observation, action, normaliser, laps, lineage.
    """

    number: int
    created: str  # ISO 8601, UTC
    metadata: dict[str, Any]
    files: dict[str, dict[str, Any]]  # name -> {sha256, bytes}; old manifests have no bytes
    aliases: tuple[str, ...] = ()


class Model(NamedTuple):
    """A version with its checked arrays."""

    version: Version
    arrays: dict[str, np.ndarray]


def manifest_bytes(version: Version) -> bytes:
    """Returns the manifest, which holds its own checksum."""
    manifest = {
        "format_version": FORMAT_VERSION,
        "number": version.number,
        "created": version.created,
        "metadata": version.metadata,
        "files": version.files,
    }
    tree = {"sha256": _checksum(manifest), "manifest": manifest}
    return (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode()


def parse_manifest(data: bytes, number: int) -> Version:
    """Parses a manifest; raises RegistryError if it is damaged."""
    name = f"version {number}"
    try:
        tree = parse_json(data, "its manifest")
        manifest = tree["manifest"]
        if tree["sha256"] != _checksum(manifest):
            raise ValueError("manifest.json: checksum differs")
        if manifest["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"it has format version {manifest['format_version']}; this rlcar reads "
                f"{FORMAT_VERSION}"
            )
        if manifest["number"] != number:
            raise ValueError(f"its manifest is that of version {manifest['number']}")
        files = {file: _about_file(file, about) for file, about in manifest["files"].items()}
        created = datetime.fromisoformat(manifest["created"]).isoformat(timespec="milliseconds")
        if POLICY not in files or not files.keys() <= {POLICY, REPORT}:
            raise ValueError(f"it lists the files {', '.join(sorted(files))[:100]}")
    except (KeyError, TypeError, AttributeError):
        raise RegistryError(f"{name} is damaged: its manifest is incomplete") from None
    except ValueError as error:
        raise RegistryError(f"{name} is damaged: {error}") from None
    return Version(number, created, check_metadata(manifest["metadata"], name), files)


def _about_file(file: str, about: Any) -> dict[str, Any]:
    """Returns checksum and size of a file; manifests of older versions of rlcar hold no size."""
    known: dict[str, Any] = {"sha256": about["sha256"]}
    if "bytes" in about:
        size = about["bytes"]
        if type(size) is not int or not 0 <= size <= LIMITS_BYTES.get(file, 0):
            raise ValueError(f"its manifest says that {file[:40]} has {str(size)[:40]} bytes")
        known["bytes"] = size
    return known


def read_version_file(store: Store, version: Version, file: str) -> bytes:
    """Reads a file of the manifest; raises RegistryError unless it is as it was published.

    The size is checked before anything is read.
    """
    number, known = version.number, version.files[file]
    name, size = f"{folder_of(number)}/{file}", known.get("bytes")
    try:
        data = store.read(name, LIMITS_BYTES[file] if size is None else size)
    except FileNotFoundError:
        raise RegistryError(f"version {number} is damaged: it has no {file}") from None
    if sha256(data) != known["sha256"]:
        raise RegistryError(
            f"version {number} is damaged ({file}: checksum differs); roll back, or publish it "
            "again"
        )
    return data


def folder_of(number: int) -> str:
    """Returns the folder of a version's files."""
    return f"versions/{number:08d}"


def number_of(name: str) -> int | None:
    """Returns the version that a file below `versions/` belongs to, if any."""
    match = _FOLDER.fullmatch(name)
    return int(match[1]) if match else None


def sha256(data: bytes) -> str:
    """Returns the SHA-256 of data."""
    return hashlib.sha256(data).hexdigest()


def _checksum(manifest: Any) -> str:
    return sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode())
