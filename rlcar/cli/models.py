"""`rlcar models …`: the versions of a registry, from publication to deletion."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rlcar.cli.gates import gate
from rlcar.cli.shared import MODELS, AsJson, RunOrCheckpoint, Where, console, number
from rlcar.cli.tracking import track
from rlcar.errors import UserError
from rlcar.system.console import make_console
from rlcar.system.tables import make_table

if TYPE_CHECKING:
    from rlcar.registry import Registry, Version
    from rlcar.registry.backup import Copied

app = typer.Typer(no_args_is_help=True, help="Publishes, compares, promotes and moves models.")

Name = Annotated[str, typer.Argument(help="Version: its number, an alias of it, or latest.")]
Alias = Annotated[str, typer.Option(help="Alias to move, e.g. champion.")]
Description = Annotated[str, typer.Option(help="Description of the version, for people.")]


@app.command("list")
def list_(registry: Where = MODELS, as_json: AsJson = False) -> None:
    """Lists the versions, newest first."""
    opened = _open(registry)
    versions = opened.versions()
    if as_json:
        _print_json([_tree(version) for version in versions])
        return
    table = make_table(
        *("version", "aliases", "created", "policy", "laps", "run", "description"),
        right=("version", "laps"),
        whole=("created",),
    )
    for version in versions:
        table.add_row(*map(escape, _row(version)))
    make_console().print(table)
    if not versions:
        console.print(f"{opened.place} holds no version", markup=False, highlight=False)
    for damaged, reason in opened.damaged().items():
        console.print(f"[yellow]version {damaged} is left out:[/] {escape(reason)}")
    opened.aliases()  # says so if one cannot be read


def _row(version: "Version") -> tuple[str, ...]:
    metadata = version.metadata
    laps = metadata["laps"]
    return (
        str(version.number),
        ", ".join(version.aliases),
        version.created[:10],
        f"{metadata['algorithm']}, {metadata['config']['world']}",
        f"{100 * laps['lap_rate']:.1f} %" if laps else "-",
        metadata["lineage"]["run"] or "-",
        metadata["description"],
    )


@app.command()
def show(name: Name, registry: Where = MODELS, as_json: AsJson = False) -> None:
    """Shows the metadata of a version, and checks its files; --json shows every setting."""
    model = _open(registry).open(name)
    tree = _tree(model.version)
    if as_json:
        _print_json(tree)
        return
    config = tree["metadata"]["config"]
    tree["metadata"]["config"] = {name: config[name] for name in ("preset", "world", "seed")}
    own_tracks = config["race"]["track"].get("own", ())  # versions of before have no such setting
    if own_tracks:
        tree["metadata"]["config"]["own_tracks"] = [track["name"] for track in own_tracks]
    if tree["metadata"]["laps"]:
        del tree["metadata"]["laps"]["per_track"]
    tree["numbers"] = sum(array.size for array in model.arrays.values())
    make_console().print_json(json.dumps(tree))


@app.command()
def publish(
    run: RunOrCheckpoint,
    description: Description = "",
    alias: Annotated[
        str | None, typer.Option(help="Alias that shall point at the new version, e.g. champion.")
    ] = None,
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Publishes a run's best policy as a new version."""
    from serve.policy.policy import try_model

    opened = _open(registry)
    version = opened.publish(run, description)
    if alias is not None:
        version = opened.promote(version.number, alias, try_model)
    _say(version, "published", as_json)


@app.command()
def promote(
    name: Name, alias: Alias = "champion", registry: Where = MODELS, as_json: AsJson = False
) -> None:
    """Moves an alias to a version that can be served; servers follow it within seconds."""
    from serve.policy.policy import try_model

    _say(_open(registry).promote(name, alias, try_model), f"{alias} now", as_json)


@app.command()
def rollback(
    alias: Annotated[str, typer.Argument(help="Alias to move back, e.g. champion.")] = "champion",
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Moves an alias back to the sound version that it pointed at before."""
    from serve.policy.policy import try_model

    _say(_open(registry).rollback(alias, try_model), f"{alias} again", as_json)


@app.command()
def diff(one: Name, other: Name, registry: Where = MODELS, as_json: AsJson = False) -> None:
    """Compares the metadata of two versions."""
    difference = _open(registry).diff(one, other)
    if as_json:
        _print_json(difference)
        return
    table = make_table("metadata", one, other)
    for name, pair in difference.items():
        if name != "laps.per_track":
            table.add_row(escape(name), *(escape(_shown(value)) for value in pair))
    make_console().print(table)


def _shown(value: object) -> str:
    """Returns the text of a value of the metadata; own tracks are only named."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "line" in value[0]:
        return ", ".join(str(track["name"]) for track in value)
    return str(value)


app.command()(gate)
app.command()(track)


@app.command()
def delete(name: Name, registry: Where = MODELS) -> None:
    """Deletes a version for good, unless an alias points at it."""
    opened = _open(registry)
    number = opened.resolve(name)
    opened.delete(number)
    console.print(f"deleted version {number}", highlight=False)


@app.command()
def retain(
    days: Annotated[float, number(0, 36_500, help="Days for which every version is kept.")] = 90.0,
    newest: Annotated[
        int, number(1, 1_000_000, help="Number of newest versions to keep whatever their age.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Lists the versions without deleting them.")
    ] = False,
    registry: Where = MODELS,
) -> None:
    """Deletes old versions, except those that an alias points at or pointed at last."""
    numbers = _open(registry).retain(days, newest, dry_run)
    verb = "would delete" if dry_run else "deleted"
    named = ", ".join(str(number) for number in numbers) or "none"
    console.print(f"{verb} {len(numbers)} versions: {named}", highlight=False)


@app.command()
def export(
    name: Name,
    path: Annotated[
        Path, typer.Argument(help="File to write; it ends in .safetensors, .onnx or .c.")
    ],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="Format: safetensors, which import reads, or onnx or c, which other programs run.",
        ),
    ] = "safetensors",
    registry: Where = MODELS,
) -> None:
    """Writes a version as one file: the whole version, or its policy for other programs."""
    from rlcar.registry.portable.export import FORMATS, export_policy

    if format_ not in ("safetensors", *FORMATS):
        known = ", ".join(("safetensors", *FORMATS))
        raise UserError(f"--format {format_!r}: give one of {known}")
    if path.suffix != f".{format_}":
        why = ", by which import knows it" if format_ == "safetensors" else ""
        raise UserError(f"{path} does not end in .{format_}{why}")
    if format_ == "safetensors":
        _open(registry).export(name, path)
    else:
        export_policy(_open(registry), name, path, format_)
    console.print(f"written: {path}", markup=False, highlight=False)


@app.command("import")
def import_(
    path: Annotated[
        Path, typer.Argument(help="Exported file, or a legacy pickle; see docs/models.md.")
    ],
    description: Description = "",
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Publishes a file as a new version; nothing in the file is ever executed."""
    _say(_open(registry).import_(path, description), "imported", as_json)


@app.command()
def backup(
    to: Annotated[str, typer.Argument(help="Folder or URL, empty or an earlier backup.")],
    registry: Where = MODELS,
) -> None:
    """Copies to a backup what it does not have yet; every byte is checked."""
    _say_copied(_open(registry).backup(to), "backed up")


@app.command()
def restore(
    source: Annotated[str, typer.Argument(help="Folder or URL of the backup.")],
    registry: Where = MODELS,
) -> None:
    """Copies from a backup what the registry has lost, or everything into an empty one."""
    _say_copied(_open(registry).restore(source), "restored")


def _say_copied(copied: "Copied", what: str) -> None:
    console.print(f"{what}: {len(copied.versions)} versions", markup=False, highlight=False)
    problems = [*copied.damaged.values(), *copied.moves]
    if problems:
        raise UserError(f"not copied: {'; '.join(problems)}")


def _open(location: str) -> "Registry":
    from rlcar.registry import Registry

    return Registry(location)


def _say(version: "Version", what: str, as_json: bool) -> None:
    if as_json:
        _print_json(_tree(version))
        return
    about = f"{version.metadata['algorithm']}, {version.metadata['config']['world']}"
    line = f"{what}: version {version.number} ({about}) {version.metadata['description']}"
    console.print(line.strip(), markup=False, highlight=False)


def _tree(version: "Version") -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(json.dumps(version._asdict()))
    return tree


def _print_json(tree: Any) -> None:
    typer.echo(json.dumps(tree, indent=2, allow_nan=False))
