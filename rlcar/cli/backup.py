"""`rlcar backup …`: copies of everything that cannot be made again."""

import json
import time
from typing import Annotated, Any

import typer
import typer.core

from rlcar.cli.backup_shared import (
    DATA,
    SWEEPS,
    Data,
    DryRun,
    MetricsFile,
    StateFile,
    Sweeps,
    Target,
    Tokens,
    accept_lacking,
    describe_size,
    is_backed_up,
    print_figures,
    record_snapshot,
    recorded,
    recorded_verification,
    say_created,
    say_planned,
    source_folders,
    verify_snapshots,
    watched,
)
from rlcar.cli.shared import MODELS, RUNS, TOKENS, AsJson, RunsFolder, Where, number, say
from rlcar.errors import UserError
from rlcar.system.console import make_console
from rlcar.system.tables import make_table
from rlcar.system.user_folders import expanded


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


WithTokens = Annotated[
    bool,
    typer.Option("--with-tokens", help="Includes the file of access tokens, which is a secret."),
]
Checksum = Annotated[
    bool,
    typer.Option("--checksum", help="Reads every file, even where size and times are the same."),
]
AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing", help="Continues if a folder of the last backup is missing or empty."
    ),
]
AllowSkipped = Annotated[
    bool,
    typer.Option(
        "--allow-skipped",
        help="Accepts a snapshot without links and without files that cannot be read.",
    ),
]
VerifyNew = Annotated[
    bool, typer.Option("--verify", help="Reads the new snapshot again afterwards and checks it.")
]


@app.command()
def create(
    target: Target,
    runs: RunsFolder = RUNS,
    registry: Where = MODELS,
    data: Data = DATA,
    sweeps: Sweeps = SWEEPS,
    tokens: Tokens = TOKENS,
    with_tokens: WithTokens = False,
    checksum: Checksum = False,
    allow_missing: AllowMissing = False,
    allow_skipped: AllowSkipped = False,
    verify: VerifyNew = False,
    dry_run: DryRun = False,
    state_file: StateFile = None,
    metrics_file: MetricsFile = None,
) -> None:
    """Makes a snapshot of all folders that exist; only what is new is uploaded."""
    from rlcar.storage.backup.create import create_snapshot, plan_snapshot
    from rlcar.storage.backup.store import open_store

    sources = source_folders(runs, registry, data, sweeps)
    if with_tokens:
        sources["tokens"] = expanded(tokens)
    if dry_run:
        say_planned(plan_snapshot(open_store(target), sources))
        return
    with recorded(state_file, runs, metrics_file) as state:
        store = open_store(target)
        started_s = time.monotonic()
        with watched("backing up", f"backup {target}") as (stop, counts):
            created = create_snapshot(
                store,
                sources,
                should_hash_all=checksum,
                may_lack_parts=allow_missing,
                should_stop=stop.__bool__,
                counts=counts,
            )
        record_snapshot(state, store, created, time.monotonic() - started_s)
        say_created(created, store)
        if verify:
            verify_snapshots(state, store, target, created.snapshot.name)
        accept_lacking(created.snapshot, target, may_lack=allow_skipped)
        state.succeeded()


@app.command("list")
def list_(target: Target, as_json: AsJson = False) -> None:
    """Lists the snapshots, oldest first."""
    from rlcar.storage.backup.manifest import read_snapshots, require_backup
    from rlcar.storage.backup.store import open_store, shown

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
                shown(one.host, 80),
                f"{len(one.files):,}",
                describe_size(one.size_bytes),
                describe_size(one.uploaded_bytes),
                str(len(one.lacking)),
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

    with recorded_verification(state_file, runs, metrics_file) as state:
        verify_snapshots(state, open_store(target), target, snapshot, should_discard=discard)


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
        number(0, 1200, "--monthly", help="Number of months whose newest snapshot is kept."),
    ] = 12,
    dry_run: DryRun = False,
) -> None:
    """Removes old snapshots and data that only they needed; the newest snapshot is kept."""
    from rlcar.storage.backup.prune import Rules
    from rlcar.storage.backup.prune import prune as prune_store
    from rlcar.storage.backup.store import open_store

    pruned = prune_store(open_store(target), Rules(days, model_days, monthly), is_dry_run=dry_run)
    would = "would be " if dry_run else ""
    for names, what in ((pruned.reduced, "reduced to their models"), (pruned.removed, "removed")):
        if names:
            say(f"{would}{what}: {', '.join(names)}")
    print_figures(
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
            help="Days without training after which a run loses its checkpoints.",
        ),
    ] = 30.0,
    model_days: Annotated[
        float,
        number(0, 36_500, "--model-days", help="Days for which every published model is kept."),
    ] = 90.0,
    runs: RunsFolder = RUNS,
    registry: Where = MODELS,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Accepts a registry that holds no version."),
    ] = False,
    backed_up_within_days: Annotated[
        float | None,
        number(
            *(0, 36_500, "--backed-up-within-days"),
            help="Deletes nothing unless the last complete backup, which the state file records, "
            "is at most this old (default: no condition).",
        ),
    ] = None,
    state_file: StateFile = None,
    dry_run: DryRun = False,
) -> None:
    """Deletes old checkpoints and models of this installation, except those that an alias needs."""
    from rlcar.registry import Registry
    from rlcar.runs.retention import expire_checkpoints

    if not is_backed_up(state_file, runs, backed_up_within_days):
        return
    opened = Registry(registry)
    if not opened.numbers() and not allow_missing:
        raise UserError(
            f"the registry {opened.place} holds no version, so the runs that its models need are "
            "not known: is its disk mounted? If nothing was ever published, add --allow-missing"
        )
    named = {opened.version(alias).metadata["lineage"].get("run") for alias in opened.aliases()}
    kept_runs = {str(run) for run in named if run}
    expired = expire_checkpoints(runs, checkpoint_days, kept_runs, is_dry_run=dry_run)
    would = "would delete" if dry_run else "deleted"
    for one in expired:
        say(f"{would} {one.saves} checkpoints of {one.folder} ({describe_size(one.size_bytes)})")
    models = opened.retain(model_days, dry_run=dry_run)
    if models:
        say(f"{would} the versions {', '.join(map(str, models))} of {opened.place}")
    print_figures(
        runs=len(expired),
        checkpoints=sum(one.saves for one in expired),
        freed_bytes=sum(one.size_bytes for one in expired),
        models=len(models),
    )
