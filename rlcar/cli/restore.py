"""`rlcar restore`: brings back what `rlcar backup` has copied."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.backup_shared import (
    DATA,
    SWEEPS,
    Data,
    DryRun,
    Sweeps,
    Target,
    Tokens,
    print_figures,
    source_folders,
    watched,
)
from rlcar.cli.shared import MODELS, RUNS, TOKENS, RunsFolder, Where, say
from rlcar.errors import UserError
from rlcar.system.user_folders import expanded

if TYPE_CHECKING:
    from rlcar.storage.backup.restore import Restored


Wanted = Annotated[str, typer.Option(help="Snapshot to restore: its name, its number, or latest.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        help="Part to restore: runs, models, data, sweeps or tokens; repeatable (default: all but "
        "tokens)."
    ),
]
OnlyRuns = Annotated[
    list[str] | None,
    typer.Option(help="Name of a run to restore, and nothing else; repeatable."),
]
To = Annotated[
    Path | None,
    typer.Option(help="Folder that receives the restored runs/, models/ and so on."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replaces runs and other folders that exist.")
]
SkipDamaged = Annotated[
    bool,
    typer.Option("--skip-damaged", help="Leaves out files that are damaged in the backup."),
]


def restore(
    target: Target,
    snapshot: Wanted = "latest",
    only: Only = None,
    run: OnlyRuns = None,
    to: To = None,
    runs: RunsFolder = RUNS,
    registry: Where = MODELS,
    data: Data = DATA,
    sweeps: Sweeps = SWEEPS,
    tokens: Tokens = TOKENS,
    overwrite: Overwrite = False,
    skip_damaged: SkipDamaged = False,
    dry_run: DryRun = False,
) -> None:
    """Brings back runs, models, data sets and sweeps from a backup; every byte is checked."""
    from rlcar.storage.backup.restore import Selection
    from rlcar.storage.backup.restore import restore as restore_items
    from rlcar.storage.backup.store import open_store

    parts = _parts(only)
    if to is not None:
        targets = _folders_in(to)
    else:
        targets = source_folders(runs, registry, data, sweeps) | {"tokens": expanded(tokens)}
        if "models" not in targets and "models" in (parts or ["models"]) and not run:
            raise UserError(
                f"the registry {registry} is not a folder: restore the rest with --only, or name a "
                "folder with --registry"
            )
    selection = Selection(targets, parts, run or (), overwrite, skip_damaged)
    with watched("restoring", f"restore {target}") as (stop, counts):
        restored = restore_items(
            open_store(target),
            snapshot,
            selection,
            is_dry_run=dry_run,
            should_stop=stop.__bool__,
            counts=counts,
        )
    _say_restored(restored, "would restore" if dry_run else "restored")


def _parts(only: list[str] | None) -> list[str]:
    from rlcar.storage.backup.manifest import PARTS

    unknown = [part for part in only or [] if part not in PARTS]
    if unknown:
        raise UserError(f"--only {unknown[0]!r}: give one of {', '.join(PARTS)}")
    return only or []


def _folders_in(folder: Path) -> dict[str, Path]:
    from rlcar.storage.backup.manifest import PARTS

    return {part: folder / part for part in PARTS} | {"tokens": folder / "tokens" / "tokens.json"}


def _say_restored(restored: "Restored", verb: str) -> None:
    from rlcar.storage.backup.store import shown

    for item in restored.items:
        say(f"{verb} {shown(str(item.target))}")
    say(f"{verb} snapshot {restored.snapshot.name} of {shown(restored.snapshot.started)}")
    print_figures(files=restored.files, bytes=restored.size_bytes)
