"""`rlcar models …`: the versions of a registry, from publication to deletion."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from rlcar.cli.shared import MODELS, Where, console, number
from rlcar.errors import UserError
from rlcar.system.console import make_console

app = typer.Typer(no_args_is_help=True, help="Publishes, compares, promotes and moves models.")

AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON for programs.")]
Name = Annotated[str, typer.Argument(help="A number, an alias, or latest.")]
Alias = Annotated[str, typer.Option(help="The alias to move.")]
Description = Annotated[str, typer.Option(help="A sentence for people.")]


@app.command("list")
def list_(registry: Where = MODELS, as_json: AsJson = False) -> None:
    """Lists the versions, newest first."""
    opened = _open(registry)
    versions = opened.versions()
    if as_json:
        _print_json([_tree(one) for one in versions])
        return
    table = Table(box=None, pad_edge=False)
    for column in ("version", "aliases", "created", "algorithm", "world", "laps", "run", ""):
        table.add_column(
            column, overflow="fold", no_wrap=column in ("created", "algorithm", "laps")
        )
    for one in versions:
        metadata, laps = one.metadata, one.metadata["laps"] or {}
        driven = f"{100 * laps['lap_rate']:.1f} %" if laps else "-"
        row = (
            *(str(one.number), ", ".join(one.aliases), one.created[:10], metadata["algorithm"]),
            *(metadata["config"]["world"], driven, metadata["lineage"]["run"] or "-"),
            metadata["description"],
        )
        table.add_row(*(escape(cell) for cell in row))
    make_console().print(table)
    if not versions:
        console.print(f"{opened.place} holds no version", markup=False, highlight=False)
    for version, sentence in opened.damaged().items():
        console.print(f"[yellow]version {version} is left out:[/] {escape(sentence)}")
    opened.aliases()  # says so if one cannot be read


@app.command()
def show(name: Name, registry: Where = MODELS, as_json: AsJson = False) -> None:
    """Shows what a version says of itself, and checks its files; --json shows every setting."""
    model = _open(registry).open(name)
    tree = _tree(model.version)
    if as_json:
        _print_json(tree)
        return
    config = tree["metadata"]["config"]
    tree["metadata"]["config"] = {name: config[name] for name in ("preset", "world", "seed")}
    if tree["metadata"]["laps"]:
        del tree["metadata"]["laps"]["per_track"]
    tree["numbers"] = sum(array.size for array in model.arrays.values())
    make_console().print_json(json.dumps(tree))


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="A run folder, or one checkpoint of it.")],
    description: Description = "",
    alias: Annotated[str | None, typer.Option(help="An alias to give it at once.")] = None,
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
    """Lets an alias point at a version that can be served; servers change over within seconds."""
    from serve.policy.policy import try_model

    _say(_open(registry).promote(name, alias, try_model), f"{alias} now", as_json)


@app.command()
def rollback(
    alias: Annotated[str, typer.Argument(help="The alias to take back.")] = "champion",
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Lets an alias point at its sound version before the present one again."""
    from serve.policy.policy import try_model

    _say(_open(registry).rollback(alias, try_model), f"{alias} again", as_json)


@app.command()
def diff(one: Name, other: Name, registry: Where = MODELS, as_json: AsJson = False) -> None:
    """Compares what two versions say of themselves."""
    difference = _open(registry).diff(one, other)
    if as_json:
        _print_json(difference)
        return
    table = Table("", escape(one), escape(other))
    for name, pair in difference.items():
        if name != "laps.per_track":
            table.add_row(*(escape(str(cell)) for cell in (name, *pair)))
    make_console().print(table)


@app.command()
def delete(name: Name, registry: Where = MODELS) -> None:
    """Deletes a version for good, unless an alias points at it."""
    opened = _open(registry)
    number = opened.resolve(name)
    opened.delete(number)
    console.print(f"deleted version {number}", highlight=False)


@app.command()
def retain(
    days: Annotated[float, number(0, 36_500, help="What is younger stays.")] = 90.0,
    newest: Annotated[int, number(1, 1_000_000, help="So many stay whatever their age.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Names them only.")] = False,
    registry: Where = MODELS,
) -> None:
    """Deletes old versions that no alias points at, or was moved from last."""
    numbers = _open(registry).retain(days, newest, dry_run)
    verb = "would delete" if dry_run else "deleted"
    named = ", ".join(str(number) for number in numbers) or "none"
    console.print(f"{verb} {len(numbers)} versions: {named}", highlight=False)


@app.command()
def export(
    name: Name,
    path: Annotated[Path, typer.Argument(help="The file to write, ending .safetensors.")],
    registry: Where = MODELS,
) -> None:
    """Writes a version as one file."""
    if path.suffix != ".safetensors":
        raise UserError(f"{path} does not end in .safetensors, by which import knows it")
    _open(registry).export(name, path)
    console.print(f"written: {path}", markup=False, highlight=False)


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="An exported file, or a pickle of the old product.")],
    description: Description = "",
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Publishes a file as a new version; nothing in it is executed, whatever it holds."""
    _say(_open(registry).import_(path, description), "imported", as_json)


@app.command()
def backup(
    to: Annotated[str, typer.Argument(help="A folder or a URL, empty or an earlier backup.")],
    registry: Where = MODELS,
) -> None:
    """Copies what a backup does not have yet; every byte is checked."""
    _say_copied(_open(registry).backup(to), "backed up")


@app.command()
def restore(
    source: Annotated[str, typer.Argument(help="The backup.")], registry: Where = MODELS
) -> None:
    """Copies back what the registry has lost, or all into an empty one."""
    _say_copied(_open(registry).restore(source), "restored")


def _say_copied(copied: Any, what: str) -> None:
    console.print(f"{what}: {len(copied.versions)} versions", markup=False, highlight=False)
    problems = [*copied.damaged.values(), *copied.moves]
    if problems:
        raise UserError(f"not copied: {'; '.join(problems)}")


def _open(location: str) -> Any:
    from rlcar.registry import Registry

    return Registry(location)


def _say(version: Any, what: str, as_json: bool) -> None:
    if as_json:
        _print_json(_tree(version))
        return
    about = f"{version.metadata['algorithm']}, {version.metadata['config']['world']}"
    line = f"{what}: version {version.number} ({about}) {version.metadata['description']}"
    console.print(line.strip(), markup=False, highlight=False)


def _tree(version: Any) -> dict[str, Any]:
    return json.loads(json.dumps(version._asdict()))


def _print_json(tree: Any) -> None:
    typer.echo(json.dumps(tree, indent=2, allow_nan=False))
