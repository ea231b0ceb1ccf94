"""A journal in the registry: numbered entries that are written once and never change.

    rollouts/champion/00000007.json             an entry, complete or absent
    rollout-notices/champion/00000007.json      some server has announced it, or is about to

Every writer appends directly after the entry that it read last, and the store accepts one entry for
each number. So writers on several hosts agree on the order without a lock: the slower one reads
what happened meanwhile, and decides again.
"""

import json
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from rlcar.errors import RegistryError, RegistryUnavailableError
from rlcar.registry.aliases import check_name
from rlcar.registry.model_file import parse_json
from rlcar.registry.store import CLAIM_FOLDER, Store
from rlcar.registry.version import sha256

FOLDER = "rollouts"
NOTICES_FOLDER = "rollout-notices"
MAX_ENTRY_BYTES = 1 << 18
FORMAT_VERSION = 1
# A writer takes at most the store's deadline of ten seconds between its claim and its entry.
_CLAIM_EXPIRES_S = 60.0
_CLOCK = "clock.json"  # written to learn the time of the store
_ENTRY = re.compile(r"(\d{8})\.json")
_CLAIMED = re.compile(rf"(\d{{8}})\.json{re.escape(CLAIM_FOLDER)}/.+")


class JournalEntry(NamedTuple):
    """One entry."""

    number: int
    time_s: float  # Unix time of the writer's clock
    actor: str  # who wrote it: a person's account or a server
    content: dict[str, Any]
    skips: tuple[int, ...]  # numbers whose writer died between its claim and its entry


class Journal:
    """Reads and appends the entries about one alias; remembers what it has read."""

    def __init__(self, store: Store, alias: str):
        self._store, self._alias, self._folder = store, alias, f"{FOLDER}/{alias}"
        self._known: dict[int, JournalEntry] = {}
        # What the last `read` found: the numbers of all files, and the entries.
        self._last: tuple[frozenset[int], list[JournalEntry]] = (frozenset(), [])

    def read(self) -> list[JournalEntry]:
        """Returns all entries in their order; raises RegistryError if one is damaged."""
        check_name(self._alias)
        found = _numbers(self._store.names(self._folder), _ENTRY)
        numbers = frozenset(number for number, _ in found)
        if numbers != self._last[0]:
            self._last = numbers, self._in_order(numbers)
        return list(self._last[1])

    def _in_order(self, numbers: frozenset[int]) -> list[JournalEntry]:
        entries: list[JournalEntry] = []
        skipped: set[int] = set()
        for number in sorted(numbers, reverse=True):  # an entry comes before those that it skips
            if number in skipped:
                continue
            if number not in self._known:
                self._known[number] = self._read(number)
            entries.append(self._known[number])
            skipped.update(entries[-1].skips)
        return entries[::-1]

    def append(self, after: int, actor: str, content: Mapping[str, Any]) -> JournalEntry | None:
        """Appends an entry directly after the entry `after`, which is 0 in an empty journal.

        Returns None, and writes nothing, if there is a later entry by now or another writer is
        about to write one.
        """
        check_name(self._alias)
        times = self._store.modified(self._folder)
        if max((number for number, _ in _numbers(times, _ENTRY)), default=0) != after:
            return None
        # On an object store, a claim without an entry is of a writer that is busy or died.
        claims = {number: times[name] for number, name in _numbers(times, _CLAIMED)}
        open_claims = {number: time_s for number, time_s in claims.items() if number > after}
        if open_claims and self._store_time_s() < max(open_claims.values()) + _CLAIM_EXPIRES_S:
            return None
        skips = tuple(sorted(open_claims))
        number = max((after, *skips)) + 1
        entry = JournalEntry(number, time.time(), actor, dict(content), skips)
        if not self._store.create(f"{self._folder}/{number:08d}.json", _entry_bytes(entry)):
            return None
        self._known[number] = entry
        return entry

    def claim_notice(self, number: int) -> bool:
        """Returns True to the one caller, of all processes, that is to announce an entry."""
        name = f"{NOTICES_FOLDER}/{self._alias}/{number:08d}.json"
        return self._store.create(name, b"{}\n")

    def _store_time_s(self) -> float:
        """Returns the time of the store's clock, which claims have too: ours may be wrong."""
        self._store.write(f"{self._folder}/{_CLOCK}", b"{}\n")
        return self._store.modified(self._folder)[_CLOCK]

    def _read(self, number: int) -> JournalEntry:
        name = f"{self._folder}/{number:08d}.json"
        try:
            return _parse(self._store.read(name, MAX_ENTRY_BYTES), number)
        except RegistryUnavailableError:
            raise
        except (ValueError, KeyError, TypeError, FileNotFoundError, RegistryError) as error:
            raise RegistryError(
                f"entry {number} of the journal {self._store.place}/{self._folder} is damaged "
                f"({error}): restore it from a backup"
            ) from None


def is_entry(name: str) -> bool:
    """Whether a name below `rollouts/` is that of an entry, such as `champion/00000007.json`."""
    return _ENTRY.fullmatch(name.partition("/")[2]) is not None


def _numbers(names: Any, pattern: re.Pattern[str]) -> list[tuple[int, str]]:
    matches = [(pattern.fullmatch(name), name) for name in names]
    return [(int(match[1]), name) for match, name in matches if match is not None]


def _entry_bytes(entry: JournalEntry) -> bytes:
    tree = {"format_version": FORMAT_VERSION, **entry._asdict(), "skips": list(entry.skips)}
    text = json.dumps(tree, allow_nan=False, sort_keys=True)
    data = (json.dumps({"sha256": sha256(text.encode()), "entry": text}) + "\n").encode()
    if len(data) > MAX_ENTRY_BYTES:
        raise RegistryError(
            f"an entry of the journal would have {len(data):,} bytes, more than the "
            f"{MAX_ENTRY_BYTES:,} allowed: shorten the rollout's file"
        )
    return data


def _parse(data: bytes, number: int) -> JournalEntry:
    outer = parse_json(data, "it")
    if outer["sha256"] != sha256(outer["entry"].encode()):
        raise ValueError("checksum differs")
    tree = parse_json(outer["entry"].encode(), "it")
    if tree["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"it has format version {tree['format_version']}; this rlcar reads {FORMAT_VERSION}"
        )
    if tree["number"] != number:
        raise ValueError(f"it says that it is entry {tree['number']}")
    return JournalEntry(
        number, float(tree["time_s"]), str(tree["actor"]), tree["content"], tuple(tree["skips"])
    )
