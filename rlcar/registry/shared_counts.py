"""Counts that several servers share through the registry while a rollout lasts.

    rollout-counts/champion/4f1c…/host-1.json     what one server has counted so far

Each server replaces its own file and reads those of the others. Counts only grow, so a reader that
misses one value finds a later one, and nothing has to be consistent between the files.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

from rlcar.errors import RegistryError, RegistryUnavailableError
from rlcar.registry.model_file import parse_json
from rlcar.registry.store import Store

FOLDER = "rollout-counts"
MAX_COUNTS_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}\.json")


class SharedCounts:
    """The counts of all servers about one rollout."""

    def __init__(self, store: Store, alias: str, rollout: str):
        self._store, self._folder = store, f"{FOLDER}/{alias}/{rollout}"

    def write(self, server: str, counts: Mapping[str, Any]) -> None:
        """Replaces the counts of one server."""
        data = json.dumps(counts, allow_nan=False).encode()
        self._store.write(f"{self._folder}/{server}.json", data)

    def read(self) -> dict[str, dict[str, Any]]:
        """Returns the counts of every server; those of a damaged file are left out."""
        found = {}
        for name in self._store.names(self._folder):
            if not _NAME.fullmatch(name):
                continue
            try:
                data = self._store.read(f"{self._folder}/{name}", MAX_COUNTS_BYTES)
                found[name.removesuffix(".json")] = dict(parse_json(data, "it"))
            except RegistryUnavailableError:
                raise
            except (RegistryError, ValueError, TypeError, FileNotFoundError):
                continue
        return found

    def clear(self) -> None:
        """Deletes the counts, as far as the store allows."""
        with contextlib.suppress(RegistryError):
            for name in self._store.names(self._folder):
                self._store.delete(f"{self._folder}/{name}")
