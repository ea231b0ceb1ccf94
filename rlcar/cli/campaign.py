"""`rlcar campaign`: a queue of trainings, a few at a time."""

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from rlcar.cli.monitor import picture
from rlcar.cli.shared import RUNS, number, say
from rlcar.errors import UserError, command
from rlcar.system import terminal
from rlcar.system.console import make_console
from rlcar.system.when import EverySeconds


def campaign(
    file: Annotated[Path, typer.Argument(help="A YAML file of slots, defaults and jobs.")],
    slots: Annotated[int | None, number(1, 65_536, help="In place of the file's.")] = None,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = RUNS,
) -> None:
    """Trains many runs, the longest first; restarts what dies or freezes from its checkpoint."""
    from rlcar.campaigns.campaign import CampaignRun, run_campaign
    from rlcar.campaigns.config import load_campaign

    settings = load_campaign(file)
    if slots is not None:
        settings = settings.model_copy(update={"slots": slots})
    queue = CampaignRun(settings, runs)
    view = _View(make_console(soft_wrap=True))
    with terminal.outlived(runs / "logs" / "campaign.log"), view.live:
        interrupted = run_campaign(queue, view.show)
    count = Counter(one.state for one in queue.jobs)
    out = make_console(soft_wrap=True)
    for state in ("done", "failed", "waiting"):
        out.print(f"figure jobs_{state}={count[state]}", highlight=False)
    failures = sum(one.failures for one in queue.jobs)
    out.print(f"figure failures={failures}", highlight=False)
    if interrupted:
        words = ["campaign", file, "--runs", runs]
        words += [] if slots is None else ["--slots", slots]
        say(f"stopped; continue with: {command(*words)}")
        sys.exit(130)
    lost = [f"{one.job.name} ({one.reason})" for one in queue.jobs if one.state == "failed"]
    if lost:
        raise UserError(f"given up after all retries: {', '.join(lost)}; see {runs}/logs")


class _View:
    """A table on a terminal; elsewhere a line when something changed, or a minute passed."""

    def __init__(self, console: Console):
        self._console = console
        self._started_s = time.monotonic()
        self._at_start: int | None = None
        self._said = ""
        self._should_draw, self._should_repeat = EverySeconds(1.0), EverySeconds(60.0)
        self.live = Live(console=console, auto_refresh=False)
        if not console.is_terminal:
            self.live = Live(console=make_console(quiet=True), auto_refresh=False)

    def show(self, jobs: list[Any]) -> None:
        """Draws the state, now and then."""
        done = sum(one.env_steps for one in jobs)
        self._at_start = done if self._at_start is None else self._at_start
        summary = _summary(jobs)
        if self._console.is_terminal and self._should_draw():
            alive = [one.run for one in jobs if one.state == "running" and one.run]
            self.live.update(picture({"runs": alive}), refresh=True)
            self.live.console.set_window_title(summary)
        if not self._console.is_terminal and (summary != self._said or self._should_repeat()):
            self._said = summary
            text = f"{summary}, {self._progress(jobs, done)}"
            self._console.print(text, markup=False, highlight=False)

    def _progress(self, jobs: list[Any], done: int) -> str:
        total = sum(one.env_steps_total for one in jobs if one.state != "failed")
        fresh, passed_s = done - (self._at_start or 0), time.monotonic() - self._started_s
        eta = "-:--:--"
        if fresh > 0:
            minutes, seconds = divmod(round(max(0, total - done) * passed_s / fresh), 60)
            eta = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        return f"{done:,} of {total:,} env steps, ETA {eta}"


def _summary(jobs: list[Any]) -> str:
    count = Counter(one.state for one in jobs)
    parts = [f"{count['done']}/{len(jobs)} jobs done"]
    parts += [
        f"{count[state]} {state}" for state in ("running", "waiting", "failed") if count[state]
    ]
    pausing = [f"{one.job.name} ({one.reason})" for one in jobs if one.state == "pausing"]
    return ", ".join(parts + [f"soon again: {', '.join(pausing)}"] * bool(pausing))
