"""`rlcar watch`: the live page of a run, while it learns or afterwards."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from rlcar.cli.shared import RUNS, console
from rlcar.errors import UserError

_MODELS = Path("models")
_POLL_S = 0.2


def watch(
    run: Annotated[str, typer.Argument(help="A run folder, or latest: the newest below --runs.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8001,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    registry: Annotated[Path, typer.Option(help="Where versions are kept.")] = _MODELS,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = RUNS,
    wait_s: Annotated[float, typer.Option(min=0, help="For the run to begin.")] = 0.0,
) -> None:
    """Opens the page where a run is watched, driven by hand, and seen to learn."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    folder = _await_run(run, runs, wait_s)
    from rlcar.config import load_config
    from rlcar.run import require_race
    from serve.live import open_live
    from serve.live_app import run_live

    config = load_config(folder / "config.json")
    require_race(folder, config)
    live = open_live(registry, folder, config.race)
    run_live(live, host, port, lambda url: console.print(f"the page: {url}", highlight=False))


def _await_run(run: str, runs: Path, wait_s: float) -> Path:
    """Returns the run's folder, once there is one; raises UserError when there is none in time."""
    from rlcar.run import require_run

    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            return require_run(_newest(runs) if run == "latest" else Path(run))
        except UserError:
            if time.monotonic() >= deadline_s:
                raise
        time.sleep(_POLL_S)


def _newest(runs: Path) -> Path:
    found = {path.parent: path.stat().st_mtime for path in runs.glob("*/run.json")}
    if not found:
        raise UserError(f"there is no run below {runs} yet: rlcar train begins one")
    return max(found, key=lambda folder: found[folder])
