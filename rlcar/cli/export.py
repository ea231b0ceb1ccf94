"""Exports the states of runs to Prometheus, for `rlcar monitor` and `rlcar campaign`."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rlcar.cli.shared import say

if TYPE_CHECKING:
    from rlcar.campaigns.campaign import CampaignRun


def export_runs(
    runs: Path, port: int, backup_state: Path | None, patience: dict[str, float]
) -> None:
    """Exports every run below a folder at a port until Ctrl-C."""
    from prometheus_client import CollectorRegistry, ProcessCollector

    from rlcar.runs.collector import BackupCollector, RunsCollector
    from rlcar.runs.monitor import RunsReader
    from rlcar.storage.backup.state import default_state_file
    from rlcar.system.interrupt import StopRequest
    from rlcar.system.metrics_server import serving_metrics

    reader = RunsReader(runs, **patience)
    reader.readings()  # so that a wrong folder is noticed before the port opens
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(RunsCollector(reader.readings, runs))
    is_optional = backup_state is None  # the first backup may come later
    state_file = backup_state or default_state_file(runs)
    registry.register(BackupCollector(state_file, is_optional=is_optional))
    over = threading.Event()
    with serving_metrics(registry, port) as bound, StopRequest() as stop:
        say(f"exporting the runs below {runs} at http://localhost:{bound}/metrics; Ctrl-C stops")
        while not stop:
            over.wait(0.5)


@contextlib.contextmanager
def exporting_campaign(campaign: "CampaignRun", runs: Path, port: int | None) -> Iterator[None]:
    """Exports a campaign at a port, if there is one, inside the block."""
    if port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, ProcessCollector

    from rlcar.campaigns.collector import CampaignCollector
    from rlcar.system.metrics_server import serving_metrics

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(CampaignCollector(campaign, runs))
    with serving_metrics(registry, port) as bound:
        say(f"exporting the campaign at http://localhost:{bound}/metrics")
        yield
