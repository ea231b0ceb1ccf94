"""`rlcar restore`: brings back what `rlcar backup` has copied."""

from pathlib import Path
from typing import Annotated

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
        list[str] | None,
        typer.Option(help="Name of a run to restore, and nothing else; repeatable."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder that receives the restored runs/, models/ and so on."),
    ] = None,
    runs: RunsFolder = RUNS,
    registry: Where = MODELS,
    data: Data = DATA,
    sweeps: Sweeps = SWEEPS,
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
        targets = source_folders(runs, registry, data, sweeps) | {"tokens": expanded(tokens)}
        if "models" not in targets and "models" in (only or PARTS) and not run:
            raise UserError(
                f"the registry {registry} is not a folder: restore the rest with --only, or name a "
                "folder with --registry"
            )
    selection = Selection(targets, only or (), run or (), overwrite, skip_damaged)
    with watched("restoring", f"restore {target}") as (stop, counts):
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
    print_figures(files=restored.files, bytes=restored.size_bytes)
