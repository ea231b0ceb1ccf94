"""Options, progress and records of `rlcar backup` and `rlcar restore`."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.shared import console, say
from rlcar.errors import UserError, command
from rlcar.system.interrupt import StopRequest
from rlcar.system.when import EverySeconds

if TYPE_CHECKING:
    from rlcar.storage.backup.create import Created, Planned
    from rlcar.storage.backup.manifest import Snapshot
    from rlcar.storage.backup.state import State
    from rlcar.storage.backup.store import BackupStore
    from rlcar.storage.backup.upload import Counts
    from rlcar.storage.backup.verify import Verified

_SAY_EVERY_S = 10.0
DATA, SWEEPS = Path("data"), Path("sweeps")

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


def source_folders(runs: Path, registry: str, data: Path, sweeps: Path) -> dict[str, Path]:
    """Returns the folder of each part; a registry in an object store is none."""
    sources = {"runs": runs, "models": Path(registry), "data": data, "sweeps": sweeps}
    if "://" in registry:
        del sources["models"]
        say(f"the registry {registry} is left out: rlcar models backup copies an object store")
    return sources


@contextmanager
def watched(what: str, again: str) -> "Iterator[tuple[StopRequest, Counts]]":
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
            f"{self._what}: {describe_size(done)} of {describe_size(total)} "
            f"({100 * done / total if total else 0:.0f}%), {describe_size(round(rate))}/s, "
            f"ETA {left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d}"
        )


@contextmanager
def recorded(state_file: Path | None, runs: Path, metrics_file: Path | None) -> "Iterator[State]":
    """Records how the block ended."""
    with _written_state(state_file, runs, metrics_file, "backup") as state:
        try:
            yield state
        except BaseException as error:
            state.failed(_reason(error))
            raise


@contextmanager
def recorded_verification(
    state_file: Path | None, runs: Path, metrics_file: Path | None
) -> "Iterator[State]":
    """Records a verification that failed, for whatever reason; one that was stopped did not."""
    with _written_state(state_file, runs, metrics_file, "verification") as state:
        try:
            yield state
        except Exception as error:
            state.not_verified(_reason(error))
            raise


@contextmanager
def _written_state(
    state_file: Path | None, runs: Path, metrics_file: Path | None, what: str
) -> "Iterator[State]":
    from rlcar.storage.backup.state import State, default_state_file, write_quietly

    state = State(state_file or default_state_file(runs))
    try:
        yield state
    finally:
        why = write_quietly(state, metrics_file)
        if why:
            say(f"{why}; monitoring will not see this {what}")


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return "it was stopped"
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def record_snapshot(
    state: "State", store: "BackupStore", created: "Created", duration_s: float
) -> None:
    snapshot = created.snapshot
    state.made(
        store.place,
        snapshot.name,
        duration_seconds=round(duration_s, 3),
        size_bytes=snapshot.size_bytes,
        uploaded_bytes=snapshot.uploaded_bytes,
        files=len(snapshot.files),
        skipped_files=len(snapshot.lacking),
    )


def is_backed_up(state_file: Path | None, runs: Path, within_days: float | None) -> bool:
    """Whether the last complete backup is recent enough; says so if it is not."""
    from rlcar.storage.backup.state import State, default_state_file

    state = State(state_file or default_state_file(runs))
    if within_days is None or state.is_backed_up_within(within_days):
        return True
    say(
        f"nothing is deleted, because {state.path} records no complete backup of the last "
        f"{within_days:g} days: {command('backup', 'TARGET')} makes one"
    )
    return False


def accept_lacking(snapshot: "Snapshot", target: str, *, may_lack: bool) -> None:
    """Says what a snapshot lacks; raises UserError unless that was accepted."""
    from rlcar.storage.backup.create import explain_lacking

    why = explain_lacking(snapshot)
    if not why:
        return
    everything = command("backup", "list", target, "--json")
    if may_lack:
        say(f"warning: {why}; {everything} names all of them")
        return
    raise UserError(
        f"{why}; {everything} names all of them: move what links point at into the folder and make "
        "the rest readable, or accept this with --allow-skipped"
    )


def verify_snapshots(
    state: "State",
    store: "BackupStore",
    target: str,
    snapshot: str | None,
    *,
    should_discard: bool = False,
) -> None:
    """Reads one snapshot or all of them again; raises UserError if something is damaged."""
    from rlcar.storage.backup.verify import discard, explain, verify

    with watched("verifying", f"backup verify {target}") as (stop, counts):
        checked = verify(store, snapshot, should_stop=stop.__bool__, counts=counts)
    say_verified(checked)
    problem = explain(checked, store)
    if problem and should_discard:
        problem += f"; {discard(store, checked.damaged)} damaged blobs were deleted"
    if problem:
        raise UserError(problem)
    if checked.is_complete:
        state.verified()


def say_planned(plan: "Planned") -> None:
    print_figures(
        files=plan.files,
        bytes=plan.size_bytes,
        new_files=plan.new_files,
        new_bytes_at_most=plan.new_bytes,
    )


def say_created(created: "Created", store: "BackupStore") -> None:
    for warning in created.warnings:
        say(f"warning: {warning}")
    snapshot = created.snapshot
    say(f"snapshot {snapshot.name} in {store.place}: {', '.join(snapshot.parts)}")
    print_figures(
        files=len(snapshot.files),
        bytes=snapshot.size_bytes,
        uploaded_bytes=snapshot.uploaded_bytes,
        uploaded_blobs=snapshot.uploaded_blobs,
        reread_files=created.reread,
        skipped_files=len(snapshot.lacking),
    )


def say_verified(checked: "Verified") -> None:
    print_figures(
        snapshots=checked.snapshots,
        blobs=checked.blobs,
        bytes=checked.size_bytes,
        damaged_blobs=len(checked.damaged),
        damaged_snapshots=len(checked.lost) + len(checked.unreadable),
    )


def print_figures(**figures: int) -> None:
    for name, value in figures.items():
        typer.echo(f"figure {name}={value}")


def describe_size(size_bytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"
