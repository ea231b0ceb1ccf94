"""`rlcar models gate`, and the gates of `rlcar rollout start`."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rlcar.cli.shared import MODELS, AsJson, Where, console, number, prepare_jax_on_cpu, say
from rlcar.errors import ConfigError, UserError
from rlcar.settings.explain import explain
from rlcar.system.console import make_console
from rlcar.system.tables import make_table

if TYPE_CHECKING:
    from rlcar.gates.paired import GateResult
    from rlcar.gates.settings import Gates
    from rlcar.registry import Model
    from serve.delivery.events import PassedGate

GATES = Path("gates")
OutFolder = Annotated[
    Path, typer.Option("--out", help="Folder in which the gates write figures and pictures.")
]


def gate(
    candidate: Annotated[str, typer.Argument(help="Version to test: number, alias or latest.")],
    stable: Annotated[
        str, typer.Argument(help="Version to compare with: number or alias.")
    ] = "champion",
    data: Annotated[
        str, typer.Option(help="Folder of recorded traffic: estimates both versions from it too.")
    ] = "",
    simulate: Annotated[
        bool, typer.Option("--simulate/--no-simulate", help="Drives paired laps in simulation.")
    ] = True,
    world: Annotated[
        list[str] | None,
        typer.Option(help="World to drive in; repeatable (default: those of the versions)."),
    ] = None,
    tracks: Annotated[int, number(8, 4096, help="Number of tracks in each world.")] = 128,
    seeds: Annotated[int, number(1, 64, help="Number of laps on each track.")] = 1,
    margin: Annotated[
        float, number(0.0, 1e6, help="Acceptable loss in steps of a lap; 0 asks for better laps.")
    ] = 0.0,
    seed: Annotated[int, number(0, 200, help="Seed of tracks and random numbers.")] = 0,
    allow_unknown: Annotated[
        bool,
        typer.Option("--allow-unknown", help="Also passes a candidate whose verdict is `unknown`."),
    ] = False,
    out: OutFolder = GATES,
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Compares a version with the stable one before it gets traffic; exit code 1 if it fails."""
    from rlcar.registry import Registry

    if not simulate and not data:
        raise UserError("--no-simulate leaves no gate: name recorded traffic with --data FOLDER")
    if allow_unknown and not data:
        raise UserError(
            "--allow-unknown is about recorded traffic, and there is none: name it with --data "
            "FOLDER"
        )
    drives = {
        "tracks": tracks,
        "seeds": seeds,
        "worlds": world or [],
        "margin": margin,
        "seed": seed,
    }
    recorded = {"data": data, "allowUnknown": allow_unknown, "seed": seed}
    gates = _gates(drives if simulate else None, recorded if data else None)
    opened = Registry(registry)
    results, folder = run_shown(opened.open(candidate), opened.open(stable), gates, out)
    if as_json:
        from rlcar.evaluation.json_file import finite_tree

        tree = {name: finite_tree(one._asdict()) for name, one in results.items()}
        typer.echo(json.dumps(tree, indent=2, allow_nan=False))
    else:
        print_results(results)
        console.print(f"written: {folder}", markup=False, highlight=False)
    if not all(one.passed for one in results.values()):
        raise typer.Exit(1)


def _gates(simulation: dict[str, Any] | None, data: dict[str, Any] | None) -> "Gates":
    """Returns the gates with these settings; raises ConfigError that names each wrong one."""
    import pydantic

    from rlcar.gates.settings import Gates

    try:
        return Gates.model_validate({"simulation": simulation, "offPolicyEvaluation": data})
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, Gates)) from None


def run_shown(
    candidate: "Model", stable: "Model", gates: "Gates", out: Path
) -> "tuple[dict[str, GateResult], Path]":
    """Runs gates, and says what is being done; returns the results and the folder of figures."""
    prepare_jax_on_cpu()
    from rlcar.gates.run import run_gates

    folder = out / f"version-{candidate.version.number}-over-{stable.version.number}"
    return run_gates(candidate, stable, gates, folder, say=say), folder


def print_results(results: "dict[str, GateResult]") -> None:
    """Prints one row for each gate."""
    table = make_table("gate", "result", "reason", whole=("result",))
    for name, one in results.items():
        table.add_row(escape(name), "passed" if one.passed else "failed", escape(one.reason))
    make_console().print(table)
    for name, one in results.items():
        for warning in one.figures.get("warnings", []):
            text = f"[yellow]warning:[/] {escape(name)}: {escape(warning)}"
            console.print(text, highlight=False)


def pass_gates(
    candidate: "Model", stable: "Model", gates: "Gates", out: Path
) -> "list[PassedGate]":
    """Runs the gates of a rollout; ends the command with exit code 1 if one fails."""
    from serve.delivery.events import PassedGate

    results, folder = run_shown(candidate, stable, gates, out)
    failed = [name for name, one in results.items() if not one.passed]
    if failed:
        reasons = "; ".join(f"{name}: {results[name].reason}" for name in failed)
        console.print(
            f"[red]error:[/] the rollout of version {candidate.version.number} does not begin, "
            f"because it has not passed {len(failed)} of {len(results)} gates ({escape(reasons)}); "
            f"the figures are in {escape(str(folder))}",
            highlight=False,
        )
        raise typer.Exit(1)
    return [PassedGate(name, one.reason, _numbers(one)) for name, one in results.items()]


def _numbers(result: "GateResult") -> dict[str, float]:
    """Returns the interval on which a decision rests."""
    interval = result.figures.get("improvement") or result.figures.get("difference") or {}
    return {name: float(value) for name, value in interval.items() if math.isfinite(value)}
