"""`rlcar monitor`: shows what runs are doing, once or again and again."""

import datetime
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rlcar.cli.alerts import alerts_reader, alerts_table
from rlcar.cli.export import export_runs
from rlcar.cli.shared import RUNS, AsJson, RunsFolder, cluster_imports, number
from rlcar.errors import UserError
from rlcar.system import terminal
from rlcar.system.console import make_console
from rlcar.system.heartbeat import WORKING
from rlcar.system.tables import make_ruled_table, make_table

if TYPE_CHECKING:
    from cluster.jobs.monitor import NodeStatus
    from rlcar.runs.monitor import Card, RunStatus
    from rlcar.runs.prometheus_alerts import Alert, AlertsReader

_COLOURS = {"running": "green", "finished": "bold green", "frozen": "bold red", "dead": "bold red"}
_COLOURS |= {"failed": "bold red", "stopped": "yellow", "starting": "cyan"}
_ALIVE = ("starting", "running", "frozen")
_SHOWN_AT_MOST = 30  # those that run first, then the newest
_MIB_PER_GIB = 1024


def monitor(
    run: Annotated[
        Path | None, typer.Argument(help="Folder of one run (default: all runs below --runs).")
    ] = None,
    runs: RunsFolder = RUNS,
    address: Annotated[
        str | None,
        typer.Option(
            help="Dashboard of a Ray cluster, whose jobs and nodes are shown in place of local "
            "runs: host, host:8265 or URL."
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Repeats the display until Ctrl-C.")
    ] = False,
    every: Annotated[
        float, number(0.2, 86_400, help="Seconds between two displays of --watch.")
    ] = 2.0,
    as_json: AsJson = False,
    frozen_after_s: Annotated[
        float | None,
        number(
            1.0,
            1e6,
            help="Seconds without a sign of life after which a run counts as frozen (default: 60; "
            "stages that cannot report, such as compiling, may take 15 times as long).",
        ),
    ] = None,
    prometheus: Annotated[
        str | None,
        typer.Option(
            envvar="RLCAR_PROMETHEUS",
            help="Prometheus server whose pending and firing alerts are shown too, e.g. "
            "http://localhost:9090. RLCAR_PROMETHEUS_TOKEN holds its token, if it requires one.",
        ),
    ] = None,
    prometheus_token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the token for --prometheus, instead of RLCAR_PROMETHEUS_TOKEN."
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        number(
            0,
            65_535,
            help="Exports the states of all runs to Prometheus at this port until Ctrl-C, and "
            "shows nothing; 0 takes a free port.",
        ),
    ] = None,
    backup_state: Annotated[
        Path | None,
        typer.Option(
            help="State file of rlcar backup, which --metrics-port exports (default: "
            "backup-state.json beside the folder of runs, if there is one)."
        ),
    ] = None,
) -> None:
    """Shows progress, rates, lag, utilisation and health of runs, and whether any is frozen."""
    terminal.end_when_closed()
    patience = {} if frozen_after_s is None else {"frozen_after_s": frozen_after_s}
    if metrics_port is not None:
        if run or address or watch or as_json or prometheus:
            raise UserError(
                "--metrics-port exports all runs below --runs and shows nothing: leave out RUN, "
                "--address, --watch, --json and --prometheus"
            )
        export_runs(runs, metrics_port, backup_state, patience)
        return
    look = _local(run, runs, patience) if address is None else _remote(address, patience)
    if prometheus is not None:
        reader = alerts_reader(prometheus, prometheus_token_file)
        look = _with_alerts(look, reader, is_patient=watch)
    if as_json:
        if watch:
            raise UserError("--json looks once: leave out --watch")
        typer.echo(json.dumps(_plain(look()), indent=2))
        return
    _show(look, every if watch else None)


class Snapshot(NamedTuple):
    """What `rlcar monitor` shows at one moment; None is what it does not look at."""

    runs: "list[RunStatus]"
    cards: "list[Card] | None" = None  # the GPUs of this machine
    nodes: "list[NodeStatus] | None" = None  # of a cluster
    alerts: "list[Alert] | None" = None  # pending and firing ones, of a Prometheus server
    alerts_problem: str | None = None  # why they cannot be read at this moment


_Look = Callable[[], Snapshot]


def _show(look: _Look, every_s: float | None) -> None:
    """Prints the picture once, or again and again until Ctrl-C."""
    console = make_console()
    if every_s is None:
        console.print(picture(look()))
        return
    try:
        while not console.is_terminal:  # only a terminal can show the same place again
            console.print(picture(look()))
            time.sleep(every_s)
        with Live(picture(look()), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(every_s)
                live.update(picture(look()), refresh=True)
    except KeyboardInterrupt:
        return


def _local(run: Path | None, runs: Path, patience: dict[str, float]) -> _Look:
    from rlcar.runs.monitor import RunReader, RunsReader, cards

    if run is not None:
        reader = RunReader(run, **patience)
        return lambda: Snapshot([reader.status()], cards=cards())
    readers = RunsReader(runs, **patience)
    return lambda: Snapshot(readers.statuses(), cards=cards())


def _remote(address: str, patience: dict[str, float]) -> _Look:
    with cluster_imports():
        from cluster.jobs.dashboard import connect
        from cluster.jobs.monitor import ClusterReader

    reader = ClusterReader(connect(address), **patience)
    return lambda: Snapshot(reader.statuses(), nodes=reader.nodes())


def _with_alerts(look: _Look, reader: "AlertsReader", *, is_patient: bool) -> _Look:
    """Adds the alerts of a server; if `is_patient`, its failure is shown and does not raise."""

    def look_at_both() -> Snapshot:
        snapshot = look()
        try:
            return snapshot._replace(alerts=reader.alerts())
        except UserError as error:
            if not is_patient:
                raise
            return snapshot._replace(alerts_problem=str(error))

    return look_at_both


def _plain(snapshot: Snapshot) -> dict[str, Any]:
    """Returns NamedTuples as objects, also those inside others."""
    return {
        part: [{name: _plain_value(value) for name, value in row._asdict().items()} for row in rows]
        for part, rows in snapshot._asdict().items()
        if isinstance(rows, list)
    }


def _plain_value(value: Any) -> Any:
    if isinstance(value, list):
        return [item._asdict() for item in value]
    return value._asdict() if hasattr(value, "_asdict") else value


def picture(snapshot: Snapshot) -> RenderableType:
    """Draws runs, GPUs and nodes as tables."""
    parts: list[RenderableType] = [_runs_table(snapshot.runs)]
    if snapshot.cards:
        parts.append(_cards_table([("", card) for card in snapshot.cards]))
    if snapshot.nodes:
        nodes = make_table("node", "state", "CPU", "memory", right=("CPU", "memory"))
        for node in snapshot.nodes:
            cpu, memory = f"{node.cpu_share:.0%}", f"{node.memory_share:.0%}"
            nodes.add_row(escape(node.host), node.state, cpu, memory)
        parts.append(nodes)
        if cards := [(node.host, card) for node in snapshot.nodes for card in node.cards]:
            parts.append(_cards_table(cards))
    if snapshot.alerts is not None:
        parts.append(alerts_table(snapshot.alerts))
    if snapshot.alerts_problem is not None:
        parts.append(Text(snapshot.alerts_problem, style="yellow"))
    return Group(*parts)


def _runs_table(runs: "list[RunStatus]") -> RenderableType:
    if not runs:
        return "no runs yet"
    table = make_ruled_table("run", "progress", "driving", "rates", "processes")
    alive = [run for run in reversed(runs) if run.state in _ALIVE]
    others = [run for run in reversed(runs) if run.state not in _ALIVE]
    for run in [*alive, *others][:_SHOWN_AT_MOST]:
        table.add_row(*map("\n".join, (_name(run), _progress(run), *_figures(run))))
    return table


def _name(run: "RunStatus") -> list[str]:
    state = f"[{_COLOURS.get(run.state, 'default')}]{run.state}[/]"
    return [escape(run.name), state, *([escape(run.error)] if run.error else [])]


def _progress(run: "RunStatus") -> list[str]:
    lines = [f"{run.env_steps:,} of {run.total_env_steps:,}"] if run.total_env_steps else []
    if run.state in _ALIVE:
        lines += _lines(("ETA {}", run.eta_s, ""), ("silent for {}", run.silent_s, ""))
        lines += [escape(run.stage)] if run.stage not in (None, WORKING) else []
    lines += _lines(("saved {} ago", run.checkpoint_age_s, ""))
    return lines + ([] if run.curriculum is None else [escape(run.curriculum.sentence())])


def _figures(run: "RunStatus") -> tuple[list[str], list[str], list[str]]:
    driving = _lines(
        ("{} episodes", run.episodes, ",.0f"),
        ("reward {}", run.reward, ".2f"),
        ("laps {}", run.lap_rate, ".0%"),
        ("unseen tracks {}", run.evaluation_lap_rate, ".0%"),
        ("success {}", run.success_rate, ".0%"),
        ("evaluations {}", run.evaluation_success_rate, ".0%"),
    )
    rates = _lines(
        ("{} env steps/s", run.env_steps_per_s, ",.0f"),
        ("{} train steps/s", run.train_steps_per_s, ",.1f"),
        ("lag {}", run.weights_lag_updates, ".0f"),
    )
    processes = _lines(
        ("learner {} idle", run.learner_idle_share, ".0%"),
        ("{} simulators", run.simulators, ".0f"),
        ("{} busy", run.simulators_busy_share, ".0%"),
        ("{} restarts of simulators", run.simulator_restarts or None, ".0f"),
        ("{} restarts of the learner", run.learner_restarts or None, ".0f"),
        ("{} failures of the storage", run.storage_failures or None, ".0f"),
        ("{} rollbacks", run.rollbacks or None, ".0f"),
    )
    return driving, rates, processes


def _cards_table(cards: "list[tuple[str, Card]]") -> Table:
    """Draws GPUs, each with the name of its host, which is empty for this machine."""
    table = make_table("GPU", "utilisation", "memory", right=("utilisation", "memory"))
    for host, card in cards:
        used_gib = card.memory_used_mb / _MIB_PER_GIB
        used = f"{used_gib:.1f} of {card.memory_total_mb / _MIB_PER_GIB:.1f} GiB"
        name = f"{host} {card.number} {card.name}".strip()
        table.add_row(escape(name), f"{card.utilisation:.0%}", used)
    return table


def _lines(*figures: tuple[str, float | None, str]) -> list[str]:
    """Returns a line for each known figure; one without a format is a duration in seconds."""
    return [
        text.format(f"{value:{form}}" if form else datetime.timedelta(seconds=round(value)))
        for text, value, form in figures
        if value is not None and math.isfinite(value)
    ]
