"""`rlcar rollout …`: rolls out a new version step by step."""

import json
import socket
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rlcar.cli.gates import GATES, OutFolder, pass_gates
from rlcar.cli.shared import MODELS, AsJson, Where, console
from rlcar.system.console import make_console
from rlcar.system.tables import make_table
from rlcar.system.user_folders import user_name

if TYPE_CHECKING:
    from serve.delivery.operator import Operator
    from serve.delivery.state import RolloutState

app = typer.Typer(
    no_args_is_help=True, help="Rolls out a new version step by step, and rolls it back."
)

Name = Annotated[str, typer.Argument(help="Version to roll out: its number, an alias, or latest.")]
File = Annotated[
    Path | None,
    typer.Argument(
        help="YAML file with the strategy (default: 10 %, then 50 %, ten minutes each)."
    ),
]
Alias = Annotated[str, typer.Option(help="Alias that servers follow, whose version is replaced.")]
Reason = Annotated[str, typer.Option(help="Reason, for the journal.")]
Again = Annotated[
    bool, typer.Option("--again", help="Tries a version that was rolled back before.")
]


@app.command()
def start(
    name: Name,
    file: File = None,
    again: Again = False,
    out: OutFolder = GATES,
    alias: Alias = "champion",
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Begins to roll out a version; servers of the registry take part within seconds.

    The gates that the file asks for run first. If one fails, nothing begins, and the exit code is
    1.
    """
    from serve.delivery.specification import default_specification, read_specification
    from serve.policy.policy import try_model

    specification = default_specification() if file is None else read_specification(file)
    gates = specification.gates
    run = None if gates is None else partial(pass_gates, gates=gates, out=out)
    state = _open(registry, alias).start(
        name, specification, try_model, is_again=again, pass_gates=run
    )
    _say(state, as_json)


@app.command()
def status(alias: Alias = "champion", registry: Where = MODELS, as_json: AsJson = False) -> None:
    """Shows the newest rollout with its step, weight and counts."""
    operator = _open(registry, alias)
    state = operator.read().state
    if state is None:
        if as_json:
            typer.echo("null")
        else:
            console.print("there has been no rollout yet", highlight=False)
        return
    counts = operator.counts(state)
    if as_json:
        from serve.delivery.report import described

        _print_json(described(state, counts))
        return
    _say(state, as_json=False)
    table = make_table(
        *("version", "answers", "errors", "not finite", "late", "fallbacks", "mean latency"),
        right=("answers", "errors", "not finite", "late", "fallbacks", "mean latency"),
    )
    for version, arm in ((state.stable, counts.stable), (state.candidate, counts.candidate)):
        latency = f"{1e3 * arm.latency_s / arm.timed:.3f} ms" if arm.timed else "-"
        numbers = (arm.answers, arm.errors, arm.non_finite, arm.late, arm.fallbacks)
        table.add_row(str(version), *map(str, numbers), latency)
    make_console().print(table)


@app.command()
def pause(alias: Alias = "champion", registry: Where = MODELS, as_json: AsJson = False) -> None:
    """Holds the rollout at its present weight."""
    _say(_open(registry, alias).pause(), as_json)


@app.command()
def resume(alias: Alias = "champion", registry: Where = MODELS, as_json: AsJson = False) -> None:
    """Ends a pause, or goes on after an inconclusive analysis."""
    _say(_open(registry, alias).resume(), as_json)


@app.command()
def promote(
    reason: Reason = "promoted by a person",
    alias: Alias = "champion",
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Promotes the candidate now, without the remaining steps."""
    _say(_open(registry, alias).promote(reason), as_json)


@app.command()
def abort(
    reason: Reason = "aborted by a person",
    alias: Alias = "champion",
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Gives all sessions back to the stable version."""
    _say(_open(registry, alias).abort(reason), as_json)


@app.command()
def retry(
    again: Again = False,
    alias: Alias = "champion",
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Begins an aborted rollout again at its first step."""
    _say(_open(registry, alias).retry(is_again=again), as_json)


@app.command()
def undo(
    reason: Reason = "undone by a person",
    alias: Alias = "champion",
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Takes a promotion back: the version before acts again, and the promoted one is marked."""
    _say(_open(registry, alias).undo(reason), as_json)


@app.command("list")
def list_(alias: Alias = "champion", registry: Where = MODELS, as_json: AsJson = False) -> None:
    """Lists every rollout, the newest first."""
    from serve.delivery.report import listed

    rollouts = listed(_open(registry, alias).read().entries)
    if as_json:
        _print_json(rollouts)
        return
    table = make_table("started", "rollout", "stable", "candidate", "phase", "message")
    for one in rollouts:
        row = (_time(one["started_s"]), one["rollout"], one["stable"], one["candidate"])
        table.add_row(*map(str, row), one["phase"], escape(one["message"]))
    make_console().print(table)


@app.command()
def history(alias: Alias = "champion", registry: Where = MODELS, as_json: AsJson = False) -> None:
    """Shows every entry of the journal, the newest last."""
    from serve.delivery.report import sentence, tree_of

    entries = _open(registry, alias).read().entries
    if as_json:
        _print_json([tree_of(entry) for entry in entries])
        return
    table = make_table("time", "who", "what")
    for entry in entries:
        table.add_row(_time(entry.time_s), escape(entry.actor), escape(sentence(entry.event)))
    make_console().print(table)


def _open(registry: str, alias: str) -> "Operator":
    from rlcar.registry import Registry
    from serve.delivery.operator import Operator

    return Operator(Registry(registry), alias, _actor())


def _actor() -> str:
    return f"{user_name() or 'someone'}@{socket.gethostname()}"


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _say(state: "RolloutState", as_json: bool) -> None:
    from serve.delivery.report import described, summary

    if as_json:
        _print_json(described(state))
    else:
        console.print(summary(state), markup=False, highlight=False)


def _print_json(tree: Any) -> None:
    typer.echo(json.dumps(tree, indent=2, allow_nan=False))
