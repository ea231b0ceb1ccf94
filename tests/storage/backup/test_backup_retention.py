"""Laws of the retention, for histories that nobody would write down by hand."""

import contextlib
import itertools
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlcar.errors import RegistryError
from rlcar.registry import Registry
from rlcar.storage.backup.manifest import (
    FileEntry,
    Snapshot,
    begin_backup,
    blob_name,
    read_snapshots,
    write_snapshot,
)
from rlcar.storage.backup.prune import Rules, prune, select
from rlcar.storage.backup.store import FolderStore
from rlcar.storage.backup.verify import verify

GOLDEN_MODELS = Path(__file__).parents[2] / "golden" / "formats" / "models"
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
PARTS = ["runs", "models", "data"]

hours = st.integers(0, 24 * 500)
contents = st.dictionaries(
    st.sampled_from([f"{part}/{n}" for part in PARTS for n in range(3)]),
    st.integers(0, 8),
    min_size=1,
)  # path -> which bytes
rules = st.builds(Rules, st.integers(0, 60), st.integers(0, 200), st.integers(0, 14))


@st.composite
def histories(draw):
    """Snapshots with contents; their clock was wrong now and then."""
    ages = sorted(draw(st.lists(hours, min_size=1, max_size=12)), reverse=True)
    wrong = st.sampled_from([0, 0, 0, 0, -24 * 300, 24 * 300, 24 * 20_000])
    return [(NOW - timedelta(hours=age - draw(wrong)), draw(contents)) for age in ages]


# The first snapshot goes, and without it the second one is as old as it says.
CLOCK_AHEAD = [
    (NOW - timedelta(days=100), {"runs/0": 1}),
    (NOW - timedelta(days=399), {"models/0": 2}),
    (NOW, {"runs/0": 1}),
]


def data_of(number: int) -> bytes:
    return b"%d" % number


def snapshot(number: int, time_: datetime, held: dict[str, int]) -> Snapshot:
    files = [
        FileEntry(
            path=path,
            sha256=sha256(data_of(value)).hexdigest(),
            size_bytes=1,
            mode=0o644,
            modified_ns=0,
            changed_ns=0,
        )
        for path, value in sorted(held.items())
    ]
    return Snapshot(
        format_version=1,
        name=f"{number:06d}-{time_:%Y%m%dT%H%M%SZ}-abcd",
        started=time_.isoformat(),
        finished=time_.isoformat(),
        host="host",
        rlcar="0",
        commit=None,
        sources={},
        parts=[part for part in PARTS if any(path.startswith(part) for path in held)],
        files=files,
        folders=[],
        skipped=[],
        uploaded_bytes=0,
        uploaded_blobs=0,
    )


def write_history(folder: Path, history) -> FolderStore:
    store = FolderStore(folder)
    begin_backup(store)
    old_s = time.time() - 100_000
    for number, (time_, held) in enumerate(history, 1):
        write_snapshot(store, snapshot(number, time_, held))
        for value in held.values():
            name = blob_name(sha256(data_of(value)).hexdigest())
            store.write(name, [data_of(value)])
            os.utime(folder / name, (old_s, old_s))
    return store


@settings(max_examples=15, deadline=None)
@given(histories(), rules)
@example(CLOCK_AHEAD, Rules(0, 200, 0))
def test_no_blob_of_a_kept_snapshot_goes_and_a_repetition_changes_nothing(history, wanted):
    with tempfile.TemporaryDirectory() as folder:
        store = write_history(Path(folder), history)
        before = {one.sequence: one for one in read_snapshots(store)[0]}
        planned = prune(store, wanted, is_dry_run=True)
        assert prune(store, wanted) == planned
        left = read_snapshots(store)[0]
        checked = verify(store)
        assert (checked.damaged, checked.unreadable) == ({}, [])
        # What is kept is what it was, or its models.
        for one in left:
            files = before[one.sequence].files
            models = [file for file in files if file.path.startswith("models/")]
            assert one.files == (files if one.parts == before[one.sequence].parts else models)
        assert left[-1] == before[len(history)]
        needed = {file.sha256 for one in left for file in one.files}
        assert {name.rpartition("/")[2] for name in store.list("blobs")} == needed
        again = prune(store, wanted)
        assert (again.reduced, again.removed, again.blobs) == ([], [], 0)
        assert read_snapshots(store)[0] == left


@settings(max_examples=100, deadline=None)
@given(histories(), rules)
def test_every_snapshot_that_the_rules_promise_is_kept(history, wanted):
    """Ages count from the newest, and a clock that was wrong makes none older than it is."""
    snapshots = [snapshot(number, *one) for number, one in enumerate(history, 1)]
    whole, models = select(snapshots, wanted, NOW)
    newest = max(min(one.time, NOW) for one in snapshots)
    kept = {one.name for one in whole}
    with_models = kept | {one.name for one in models}
    assert not kept & {one.name for one in models}
    for one in snapshots:
        age = newest - one.time
        if age <= timedelta(days=wanted.days):
            assert one.name in kept
        if age <= timedelta(days=wanted.model_days) and "models" in one.parts:
            assert one.name in with_models


@settings(max_examples=100, deadline=None)
@given(st.lists(hours, min_size=1, max_size=40, unique=True), rules)
def test_with_a_right_clock_nothing_else_is_kept(ages, wanted):
    snapshots = [
        snapshot(number, NOW - timedelta(hours=age), {"runs/1": 1, "models/1": 2})
        for number, age in enumerate(sorted(ages, reverse=True), 1)
    ]
    whole, models = select(snapshots, wanted, NOW)
    newest = snapshots[-1].time
    months = itertools.groupby(snapshots, lambda one: (one.time.year, one.time.month))
    lasts = [list(group)[-1] for _, group in months]
    promised = {one.name for one in (lasts[-wanted.monthly :] if wanted.monthly else [])}
    promised |= {snapshots[-1].name}
    promised |= {one.name for one in snapshots if newest - one.time <= timedelta(wanted.days)}
    assert {one.name for one in whole} == promised
    assert {one.name for one in models} == {
        one.name
        for one in snapshots
        if one.name not in promised and newest - one.time <= timedelta(wanted.model_days)
    }


ALIASES = st.sampled_from(["champion", "candidate"])
ACTS = st.one_of(
    st.tuples(st.just("promote"), ALIASES, st.integers(1, 5)),
    st.tuples(st.just("rollback"), ALIASES, st.just(0)),
    st.tuples(st.just("retain"), ALIASES, st.sampled_from([0, 90, 36_500])),
)


def act_on(registry: Registry, act: str, alias: str, number: int) -> None:
    """Does what an operator may do; a refusal changes nothing."""
    with contextlib.suppress(RegistryError):
        if act == "promote":
            registry.promote(number, alias)
        elif act == "rollback":
            registry.rollback(alias)
        else:
            registry.retain(number)


TWO_ROLLBACKS = [("promote", "champion", number) for number in (1, 2, 3)]
TWO_ROLLBACKS += [("rollback", "champion", 0)]


@settings(max_examples=20, deadline=None)
@given(st.lists(ACTS, max_size=7))
@example(TWO_ROLLBACKS)
def test_a_released_model_that_is_an_alias_or_the_next_rollback_never_goes(acts):
    """With the five versions of `tests/golden`, all of which are older than 0 days."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(GOLDEN_MODELS, Path(folder, "models"))
        registry = Registry(Path(folder, "models"))
        for act in acts:
            act_on(registry, *act)
        aliases = registry.aliases()
        rolled_back = {alias: rolled_back_to(folder, alias) for alias in aliases}
        before = [one.number for one in registry.versions()]
        planned = registry.retain(0, dry_run=True)
        assert registry.retain(0) == planned
        assert registry.retain(0) == []
        assert registry.aliases() == aliases
        assert {one.number for one in registry.versions()} == {*before} - {*planned}
        for number in {*aliases.values(), max(before)}:
            registry.open(number)
        assert {alias: rolled_back_to(folder, alias) for alias in aliases} == rolled_back


def rolled_back_to(folder: str, alias: str) -> int | None:
    """Returns the version that a rollback of the alias would serve."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(Path(folder, "models"), Path(copy, "models"))
        with contextlib.suppress(RegistryError):
            return Registry(Path(copy, "models")).rollback(alias).number
    return None
