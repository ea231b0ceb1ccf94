"""`rlcar campaign`: trains a queue of runs, and shows and steers it from other terminals."""

import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from rlcar.cli import campaign_control, campaign_status
from rlcar.cli.export import exporting_campaign
from rlcar.cli.shared import RUNS, RayAddress, RunsFolder, number, say
from rlcar.errors import GivenUpError, UserError, command
from rlcar.system import terminal
from rlcar.system.console import make_console
from rlcar.system.when import EverySeconds

if TYPE_CHECKING:
    from rlcar.campaigns.campaign import CampaignRun

app = typer.Typer(no_args_is_help=True, help="Trains many runs, a few at a time.")
app.command()(campaign_status.status)
app.command()(campaign_status.watch)
app.command()(campaign_control.pause)
app.command()(campaign_control.resume)
app.command()(campaign_control.slots)
app.command()(campaign_control.retry)

_DRAW_EVERY_S, _REPEAT_EVERY_S = 1.0, 60.0


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="YAML file of slots, defaults and jobs.")],
    slots: Annotated[
        int | None, number(1, 65_536, help="Number of trainings at once, in place of the file's.")
    ] = None,
    runs: RunsFolder = RUNS,
    address: RayAddress = None,
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
    """Trains many runs, the longest first; restarts what dies or freezes from its checkpoint.

    The same command continues a campaign that was stopped or killed. Exit code 3 if jobs were given
    up.
    """
    from rlcar.campaigns.campaign import CampaignRun, holding, run_campaign
    from rlcar.campaigns.config import load_campaign

    settings = load_campaign(file, address)
    if find_spec("ray") is None and not all(job.is_local for job in settings.jobs):
        raise UserError(
            f"Ray is not installed: pip install 'rlcar[cluster]', or train in one process with "
            f"local: true under the defaults of {file}"
        )
    with holding(runs):
        queue = CampaignRun(settings, runs, str(file), slots)
        view = _View(make_console(soft_wrap=True))
        with (
            terminal.outlived(runs / "logs" / "campaign.log"),
            exporting_campaign(queue, runs, metrics_port),
            view.live,
        ):
            interrupted = run_campaign(queue, lambda _: view.show(queue))
    count = Counter(entry.state for entry in queue.jobs)
    out = make_console(soft_wrap=True)
    for state in ("done", "failed", "waiting"):
        out.print(f"figure jobs_{state}={count[state]}", highlight=False)
    failures = sum(entry.failures for entry in queue.jobs)
    out.print(f"figure failures={failures}", highlight=False)
    if interrupted:
        words = ["campaign", "run", file, "--runs", runs]
        words += [] if slots is None else ["--slots", slots]
        words += [] if address is None else ["--address", address]
        words += [] if metrics_port is None else ["--metrics-port", metrics_port]
        say(f"stopped; continue with: {command(*words)}")
        sys.exit(130)
    lost = [f"{one.name} ({one.reason})" for one in queue.jobs if one.state == "failed"]
    if lost:
        raise GivenUpError(f"given up: {', '.join(lost)}; see {runs}/logs")


class _View:
    """Shows a table on a terminal; elsewhere a line after each change and once a minute."""

    def __init__(self, console: Console):
        self._console = console
        self._printed = ""
        self._should_draw = EverySeconds(_DRAW_EVERY_S)
        self._printed_s = 0.0
        self.live = Live(console=console, auto_refresh=False)
        if not console.is_terminal:
            self.live = Live(console=make_console(quiet=True), auto_refresh=False)

    def show(self, campaign: "CampaignRun") -> None:
        """Draws the state if it is time to."""
        from rlcar.campaigns.report import headline

        summary = _summary(campaign)
        if self._console.is_terminal and self._should_draw():
            snapshot = campaign.snapshot()
            self.live.update(campaign_status.picture(snapshot), refresh=True)
            self.live.console.set_window_title(summary)
        now_s = time.monotonic()
        is_due = summary != self._printed or now_s - self._printed_s >= _REPEAT_EVERY_S
        if not self._console.is_terminal and is_due:
            self._printed, self._printed_s = summary, now_s
            text = headline(campaign.snapshot())
            pausing = [one for one in campaign.jobs if one.state == "pausing"]
            again = ", ".join(f"{one.name} ({one.reason})" for one in pausing)
            text += f"; soon again: {again}" if again else ""
            self._console.print(text, markup=False, highlight=False)


def _summary(campaign: "CampaignRun") -> str:
    """Returns what a new line is printed for when it changes."""
    count = Counter(entry.state for entry in campaign.jobs)
    states = ", ".join(f"{count[state]} {state}" for state in sorted(count))
    return f"{states}, {campaign.slots} slots{', paused' if campaign.is_paused else ''}"
