"""`rlcar backup …` and `rlcar restore`: copies of everything that cannot be made again."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from rlcar.cli.shared import MODELS, RUNS, TOKENS, AsJson, RunsFolder, Where, console, number, say
from rlcar.errors import UserError
from rlcar.system.console import make_console
from rlcar.system.interrupt import StopRequest
from rlcar.system.tables import make_table
from rlcar.system.user_folders import expanded
from rlcar.system.when import EverySeconds

if TYPE_CHECKING:
    from rlcar.storage.backup.create import Created
    from rlcar.storage.backup.state import State
    from rlcar.storage.backup.store import BackupStore
    from rlcar.storage.backup.upload import Counts
    from rlcar.storage.backup.verify import Verified

_SAY_EVERY_S = 10.0
_DATA, _SWEEPS = Path("data"), Path("sweeps")


class _CreateUnlessNamed(typer.core.TyperGroup):
    """Makes `rlcar backup TARGET` mean `rlcar backup create TARGET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_plain = bool(args) and args[0] not in self.commands and args[0] != "--help"
        return super().parse_args(ctx, ["create", *args] if is_plain else args)


app = typer.Typer(
    cls=_CreateUnlessNamed,
    no_args_is_help=True,
    help="Backs up runs, models, data sets and sweeps: rlcar backup TARGET.",
)

Target = Annotated[
    str, typer.Argument(help="Folder or URL of the backup, such as s3://bucket/prefix.")
]
Data = Annotated[Path, typer.Option(help="Folder of data sets.")]
Sweeps = Annotated[Path, typer.Option(help="Folder in which sweeps are kept.")]
Tokens = Annotated[
    Path, typer.Option("--tokens", envvar="RLCAR_TOKENS", help="File that holds the access tokens.")
]
StateFile = Annotated[
    Path | None,
    typer.Option(
        help="File that records the last backup for monitoring (default: backup-state.json beside "
        "the folder of runs)."
    ),
]
MetricsFile = Annotated[
    Path | None,
    typer.Option(help="File to write for Prometheus's textfile collector, ending in .prom."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Shows what would be done, and changes nothing.")
]


@app.command()
def create(
    target: Target,
    runs: RunsFolder = RUNS,
    registry: Where = MODELS,
    data: Data = _DATA,
    sweeps: Sweeps = _SWEEPS,
    tokens: Tokens = TOKENS,
    with_tokens: Annotated[
        bool, typer.Option("--with-tokens", help="Includes the file of access tokens, a secret.")
    ] = False,
    checksum: Annotated[
        bool,
        typer.Option(
            "--checksum", help="Reads every file, even where size and times are the same."
        ),
    ] = False,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Accepts that a folder of the last backup is gone."),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then reads the new snapshot again and checks it.")
    ] = False,
    dry_run: DryRun = False,
    state_file: StateFile = None,
    metrics_file: MetricsFile = None,
) -> None:
    """Makes a snapshot of all folders that exist; only what is new is uploaded."""
    from rlcar.storage.backup.create import create_snapshot, plan_snapshot
    from rlcar.storage.backup.store import open_store
    from rlcar.storage.backup.verify import explain
    from rlcar.storage.backup.verify import verify as verify_blobs

    sources = _sources(runs, registry, data, sweeps)
    if with_tokens:
        sources["tokens"] = expanded(tokens)
    if dry_run:
        plan = plan_snapshot(open_store(target), sources)
        _figures(
            files=plan.files,
            bytes=plan.size_bytes,
            new_files=plan.new_files,
            new_bytes_at_most=plan.new_bytes,
        )
        return
    with _recorded(state_file, runs, metrics_file) as state:
        store = open_store(target)
        started_s = time.monotonic()
        with _watched("backing up", f"backup {target}") as (stop, counts):
            created = create_snapshot(
                store,
                sources,
                should_hash_all=checksum,
                may_lack_parts=allow_missing,
                should_stop=stop.__bool__,
                counts=counts,
            )
        _say_created(created, store)
        if verify:
            with _watched("verifying", f"backup verify {target}") as (stop, counts):
                checked = verify_blobs(
                    store, created.snapshot.name, should_stop=stop.__bool__, counts=counts
                )
            problem = explain(checked, store)
            state.verified(problem)
            if problem:
                raise UserError(problem)
        if created.unreadable:
            raise UserError(
                f"snapshot {created.snapshot.name} lacks {len(created.unreadable)} files that this "
                f"user may not read: {', '.join(created.unreadable[:3])}"
            )
        _record(state, store, created, time.monotonic() - started_s)


@app.command("list")
def list_(target: Target, as_json: AsJson = False) -> None:
    """Lists the snapshots, oldest first."""
    from rlcar.storage.backup.manifest import read_snapshots, require_backup
    from rlcar.storage.backup.store import open_store

    store = open_store(target)
    require_backup(store)
    snapshots, unreadable = read_snapshots(store)
    if as_json:
        rows = [
            one.model_dump(exclude={"files", "folders"})
            | {"files": len(one.files), "size_bytes": one.size_bytes}
            for one in snapshots
        ]
        typer.echo(json.dumps(rows, indent=2))
    else:
        table = make_table(
            *("snapshot", "parts", "host", "files", "size", "new", "skipped"),
            right=("files", "size", "new", "skipped"),
            whole=("snapshot",),
        )
        for one in snapshots:
            table.add_row(
                one.name,
                ", ".join(one.parts),
                one.host,
                f"{len(one.files):,}",
                _size(one.size_bytes),
                _size(one.uploaded_bytes),
                str(len(one.skipped)),
            )
        make_console().print(table)
    if unreadable:
        raise UserError("; ".join(one.reason for one in unreadable))


@app.command("verify")
def verify_(
    target: Target,
    snapshot: Annotated[
        str | None,
        typer.Option(help="Snapshot to check: its name, its number, or latest (default: all)."),
    ] = None,
    discard: Annotated[
        bool,
        typer.Option(
            "--discard",
            help="Deletes damaged blobs, so that the next backup uploads them again if it can.",
        ),
    ] = False,
    runs: RunsFolder = RUNS,
    state_file: StateFile = None,
    metrics_file: MetricsFile = None,
) -> None:
    """Reads the backup again and checks every byte."""
    from rlcar.storage.backup.store import open_store
    from rlcar.storage.backup.verify import discard as discard_blobs
    from rlcar.storage.backup.verify import explain, verify

    store = open_store(target)
    with _watched("verifying", f"backup verify {target}") as (stop, counts):
        checked = verify(store, snapshot, should_stop=stop.__bool__, counts=counts)
    problem = explain(checked, store)
    _record_verified(_state_path(state_file, runs), metrics_file, problem)
    _say_verified(checked)
    if problem and discard:
        discard_blobs(store, checked.damaged)
        problem += "; the damaged blobs were deleted"
    if problem:
        raise UserError(problem)


@app.command()
def prune(
    target: Target,
    days: Annotated[
        float, number(0, 36_500, "--days", help="Days for which every snapshot is kept.")
    ] = 30.0,
    model_days: Annotated[
        float, number(0, 36_500, "--model-days", help="Days for which the models are kept.")
    ] = 90.0,
    monthly: Annotated[
        int,
        number(0, 1200, "--monthly", help="Number of months of which the newest copy is kept."),
    ] = 12,
    dry_run: DryRun = False,
) -> None:
    """Removes old snapshots and what only they needed; the newest snapshot always stays."""
    from rlcar.storage.backup.prune import Rules
    from rlcar.storage.backup.prune import prune as prune_store
    from rlcar.storage.backup.store import open_store

    pruned = prune_store(open_store(target), Rules(days, model_days, monthly), is_dry_run=dry_run)
    would = "would be " if dry_run else ""
    for names, what in ((pruned.reduced, "reduced to their models"), (pruned.removed, "removed")):
        if names:
            say(f"{would}{what}: {', '.join(names)}")
    _figures(
        kept=len(pruned.kept),
        reduced=len(pruned.reduced),
        removed=len(pruned.removed),
        blobs_removed=pruned.blobs,
        freed_bytes=pruned.freed_bytes,
    )


@app.command()
def retain(
    checkpoint_days: Annotated[
        float,
        number(
            *(0, 36_500, "--checkpoint-days"),
            help="Days after which a run that nobody trains loses its checkpoints.",
        ),
    ] = 30.0,
    model_days: Annotated[
        float,
        number(0, 36_500, "--model-days", help="Days for which every published model is kept."),
    ] = 90.0,
    runs: RunsFolder = RUNS,
    registry: Where = MODELS,
    dry_run: DryRun = False,
) -> None:
    """Deletes old checkpoints and old models of this installation, but none that an alias needs."""
    from rlcar.registry import Registry
    from rlcar.runs.retention import expire_checkpoints

    opened = Registry(registry)
    named = {opened.version(alias).metadata["lineage"].get("run") for alias in opened.aliases()}
    kept_runs = {str(run) for run in named if run}
    expired = expire_checkpoints(runs, checkpoint_days, kept_runs, is_dry_run=dry_run)
    would = "would delete" if dry_run else "deleted"
    for one in expired:
        say(f"{would} {one.saves} checkpoints of {one.folder} ({_size(one.size_bytes)})")
    models = opened.retain(model_days, dry_run=dry_run)
    if models:
        say(f"{would} the versions {', '.join(map(str, models))} of {opened.place}")
    _figures(
        runs=len(expired),
        checkpoints=sum(one.saves for one in expired),
        freed_bytes=sum(one.size_bytes for one in expired),
        models=len(models),
    )


def restore(
    target: Target,
    snapshot: Annotated[
        str, typer.Option(help="Snapshot to restore: its name, its number, or latest.")
    ] = "latest",
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Part to restore: runs, models, data, sweeps or tokens; repeatable (default: all "
            "but tokens)."
        ),
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option(help="Name of a run to restore alone; repeatable.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder to restore into, as its runs/, models/ and so on."),
    ] = None,
    runs: RunsFolder = RUNS,
    registry: Where = MODELS,
    data: Data = _DATA,
    sweeps: Sweeps = _SWEEPS,
    tokens: Tokens = TOKENS,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replaces runs and other folders that exist.")
    ] = False,
    skip_damaged: Annotated[
        bool,
        typer.Option("--skip-damaged", help="Leaves out files that are damaged in the backup."),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Brings back runs, models, data sets and sweeps from a backup; every byte is checked."""
    from rlcar.storage.backup.manifest import PARTS
    from rlcar.storage.backup.restore import Selection
    from rlcar.storage.backup.restore import restore as restore_items
    from rlcar.storage.backup.store import open_store

    unknown = [part for part in only or [] if part not in PARTS]
    if unknown:
        raise UserError(f"--only {unknown[0]!r}: give one of {', '.join(PARTS)}")
    if to is not None:
        targets = {part: to / part for part in PARTS} | {"tokens": to / "tokens" / "tokens.json"}
    else:
        targets = _sources(runs, registry, data, sweeps) | {"tokens": expanded(tokens)}
        if "models" not in targets and "models" in (only or PARTS) and not run:
            raise UserError(
                f"the registry {registry} is not a folder: restore the rest with --only, or name a "
                "folder with --registry"
            )
    selection = Selection(targets, only or (), run or (), overwrite, skip_damaged)
    with _watched("restoring", f"restore {target}") as (stop, counts):
        restored = restore_items(
            open_store(target),
            snapshot,
            selection,
            is_dry_run=dry_run,
            should_stop=stop.__bool__,
            counts=counts,
        )
    verb = "would restore" if dry_run else "restored"
    for item in restored.items:
        say(f"{verb} {item.target}")
    say(f"{verb} snapshot {restored.snapshot.name} of {restored.snapshot.started}")
    _figures(files=restored.files, bytes=restored.size_bytes)


def _sources(runs: Path, registry: str, data: Path, sweeps: Path) -> dict[str, Path]:
    """Returns the folder of each part; a registry in an object store is none."""
    sources = {"runs": runs, "models": Path(registry), "data": data, "sweeps": sweeps}
    if "://" in registry:
        del sources["models"]
        say(f"the registry {registry} is left out: rlcar models backup copies an object store")
    return sources


@contextmanager
def _watched(what: str, again: str) -> "Iterator[tuple[StopRequest, Counts]]":
    """Shows the progress of the block; Ctrl-C ends it with the command that continues."""
    from rlcar.storage.backup.upload import Counts, StoppedError

    counts = Counts()
    message = f"stopping; what is done stays: rlcar {again} continues"
    with StopRequest(message) as stop, _Reporter(what, counts):
        try:
            yield stop, counts
        except StoppedError:
            sys.exit(130)


class _Reporter:
    """Prints how far the work is, now and then, from a thread."""

    def __init__(self, what: str, counts: "Counts"):
        import threading

        self._what, self._counts = what, counts
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True, name="progress")

    def __enter__(self) -> None:
        self._started_s = time.monotonic()
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _report(self) -> None:
        is_due = EverySeconds(1.0 if console.is_terminal else _SAY_EVERY_S)
        while not self._over.wait(0.2):
            if is_due():
                say(self._line())

    def _line(self) -> str:
        done, total = self._counts.done_bytes, self._counts.total_bytes
        passed_s = time.monotonic() - self._started_s
        rate = done / passed_s
        left_s = round((total - done) / rate) if rate and total > done else 0
        return (
            f"{self._what}: {_size(done)} of {_size(total)} "
            f"({100 * done / total if total else 0:.0f}%), {_size(round(rate))}/s, "
            f"ETA {left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d}"
        )


@contextmanager
def _recorded(state_file: Path | None, runs: Path, metrics_file: Path | None) -> "Iterator[State]":
    """Records how the block ended."""
    from rlcar.storage.backup.state import State, write_quietly

    state = State(_state_path(state_file, runs))
    try:
        yield state
    except BaseException as error:
        state.failed(str(error) if isinstance(error, UserError) else type(error).__name__)
        raise
    finally:
        why = write_quietly(state, metrics_file)
        if why:
            say(f"{why}; monitoring will not see this backup")


def _state_path(state_file: Path | None, runs: Path) -> Path:
    from rlcar.storage.backup.state import STATE_FILE

    return state_file or runs.resolve().parent / STATE_FILE


def _record(state: "State", store: "BackupStore", created: "Created", duration_s: float) -> None:
    snapshot = created.snapshot
    state.succeeded(
        store.place,
        snapshot.name,
        duration_seconds=round(duration_s, 3),
        size_bytes=snapshot.size_bytes,
        uploaded_bytes=snapshot.uploaded_bytes,
        files=len(snapshot.files),
        skipped_files=len(snapshot.skipped),
    )


def _record_verified(path: Path, metrics_file: Path | None, problem: str) -> None:
    from rlcar.storage.backup.state import State, write_quietly

    state = State(path)
    state.verified(problem)
    why = write_quietly(state, metrics_file)
    if why:
        say(f"{why}; monitoring will not see this verification")


def _say_created(created: "Created", store: "BackupStore") -> None:
    for warning in created.warnings:
        say(f"warning: {warning}")
    snapshot = created.snapshot
    say(f"snapshot {snapshot.name} in {store.place}: {', '.join(snapshot.parts)}")
    _figures(
        files=len(snapshot.files),
        bytes=snapshot.size_bytes,
        uploaded_bytes=snapshot.uploaded_bytes,
        uploaded_blobs=snapshot.uploaded_blobs,
        reread_files=created.reread,
        skipped_files=len(snapshot.skipped),
    )


def _say_verified(checked: "Verified") -> None:
    _figures(
        snapshots=checked.snapshots,
        blobs=checked.blobs,
        bytes=checked.size_bytes,
        damaged_blobs=len(checked.damaged),
        damaged_snapshots=len(checked.lost) + len(checked.unreadable),
    )


def _figures(**figures: int) -> None:
    for name, value in figures.items():
        typer.echo(f"figure {name}={value}")


def _size(size_bytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"
