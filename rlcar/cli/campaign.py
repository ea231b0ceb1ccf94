"""`rlcar campaign`: trains a queue of runs, a few at a time."""

import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from rlcar.cli.export import exporting_campaign
from rlcar.cli.monitor import Snapshot, picture
from rlcar.cli.shared import RUNS, RunsFolder, number, say
from rlcar.errors import UserError, command
from rlcar.system import terminal
from rlcar.system.console import make_console
from rlcar.system.when import EverySeconds

if TYPE_CHECKING:
    from rlcar.campaigns.campaign import JobState

app = typer.Typer(no_args_is_help=True, help="Trains many runs, a few at a time.")

_DRAW_EVERY_S, _REPEAT_EVERY_S = 1.0, 60.0


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="YAML file of slots, defaults and jobs.")],
    slots: Annotated[
        int | None, number(1, 65_536, help="Number of trainings at once, in place of the file's.")
    ] = None,
    runs: RunsFolder = RUNS,
    metrics_port: Annotated[
        int | None,
        number(
            0,
            65_535,
            help="Port at which Prometheus finds the metrics of the campaign and of its runs; 0 "
            "takes a free one (default: no port).",
        ),
    ] = None,
) -> None:
    """Trains many runs, the longest first; restarts what dies or freezes from its checkpoint."""
    from rlcar.campaigns.campaign import CampaignRun, run_campaign
    from rlcar.campaigns.config import load_campaign

    settings = load_campaign(file)
    if slots is not None:
        settings = settings.model_copy(update={"slots": slots})
    if find_spec("ray") is None and not all(job.is_local for job in settings.jobs):
        raise UserError(
            f"Ray is not installed: pip install 'rlcar[cluster]', or train in one process with "
            f"local: true under the defaults of {file}"
        )
    queue = CampaignRun(settings, runs)
    view = _View(make_console(soft_wrap=True))
    with (
        terminal.outlived(runs / "logs" / "campaign.log"),
        exporting_campaign(queue, runs, metrics_port),
        view.live,
    ):
        interrupted = run_campaign(queue, view.show)
    count = Counter(entry.state for entry in queue.jobs)
    out = make_console(soft_wrap=True)
    for state in ("done", "failed", "waiting"):
        out.print(f"figure jobs_{state}={count[state]}", highlight=False)
    failures = sum(entry.failures for entry in queue.jobs)
    out.print(f"figure failures={failures}", highlight=False)
    if interrupted:
        words = ["campaign", "run", file, "--runs", runs]
        words += [] if slots is None else ["--slots", slots]
        words += [] if metrics_port is None else ["--metrics-port", metrics_port]
        say(f"stopped; continue with: {command(*words)}")
        sys.exit(130)
    lost = [f"{entry.job.name} ({entry.reason})" for entry in queue.jobs if entry.state == "failed"]
    if lost:
        raise UserError(f"given up after all retries: {', '.join(lost)}; see {runs}/logs")


class _View:
    """Shows a table on a terminal; elsewhere a line after each change and once a minute."""

    def __init__(self, console: Console):
        self._console = console
        self._started_s = time.monotonic()
        self._at_start: int | None = None
        self._printed = ""
        self._should_draw = EverySeconds(_DRAW_EVERY_S)
        self._should_repeat = EverySeconds(_REPEAT_EVERY_S)
        self.live = Live(console=console, auto_refresh=False)
        if not console.is_terminal:
            self.live = Live(console=make_console(quiet=True), auto_refresh=False)

    def show(self, jobs: "list[JobState]") -> None:
        """Draws the state if it is time to."""
        done = sum(entry.env_steps for entry in jobs)
        self._at_start = done if self._at_start is None else self._at_start
        summary = _summary(jobs)
        if self._console.is_terminal and self._should_draw():
            alive = [entry.run for entry in jobs if entry.state == "running" and entry.run]
            self.live.update(picture(Snapshot(alive)), refresh=True)
            self.live.console.set_window_title(summary)
        if not self._console.is_terminal and (summary != self._printed or self._should_repeat()):
            self._printed = summary
            text = f"{summary}, {self._progress(jobs, done)}"
            self._console.print(text, markup=False, highlight=False)

    def _progress(self, jobs: "list[JobState]", done: int) -> str:
        total = sum(entry.env_steps_total for entry in jobs if entry.state != "failed")
        fresh, passed_s = done - (self._at_start or 0), time.monotonic() - self._started_s
        eta = "-:--:--"
        if fresh > 0:
            minutes, seconds = divmod(round(max(0, total - done) * passed_s / fresh), 60)
            eta = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        return f"{done:,} of {total:,} env steps, ETA {eta}"


def _summary(jobs: "list[JobState]") -> str:
    count = Counter(entry.state for entry in jobs)
    parts = [f"{count['done']}/{len(jobs)} jobs done"]
    parts += [
        f"{count[state]} {state}" for state in ("running", "waiting", "failed") if count[state]
    ]
    pausing = [f"{entry.job.name} ({entry.reason})" for entry in jobs if entry.state == "pausing"]
    return ", ".join(parts + [f"soon again: {', '.join(pausing)}"] * bool(pausing))
