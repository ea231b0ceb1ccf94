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
from rlcar.errors import UserError
from rlcar.system.interrupt import StopRequest
from rlcar.system.when import EverySeconds

if TYPE_CHECKING:
    from rlcar.storage.backup.create import Created
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
    from rlcar.storage.backup.state import State, write_quietly

    state = State(state_path(state_file, runs))
    try:
        yield state
    except BaseException as error:
        state.failed(str(error) if isinstance(error, UserError) else type(error).__name__)
        raise
    finally:
        why = write_quietly(state, metrics_file)
        if why:
            say(f"{why}; monitoring will not see this backup")


def state_path(state_file: Path | None, runs: Path) -> Path:
    from rlcar.storage.backup.state import STATE_FILE

    return state_file or runs.resolve().parent / STATE_FILE


def record_backup(
    state: "State", store: "BackupStore", created: "Created", duration_s: float
) -> None:
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


def record_verification(path: Path, metrics_file: Path | None, problem: str) -> None:
    from rlcar.storage.backup.state import State, write_quietly

    state = State(path)
    state.verified(problem)
    why = write_quietly(state, metrics_file)
    if why:
        say(f"{why}; monitoring will not see this verification")


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
        skipped_files=len(snapshot.skipped),
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
