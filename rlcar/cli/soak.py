"""`rlcar soak`: training, server and live page together for hours, with a verdict."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rlcar.cli.shared import Settings, console, number, say
from rlcar.errors import UserError
from rlcar.system.console import make_console

_DEFAULT_HOURS = 1.0
# The buffer is full within minutes, so that memory does not grow for hours by what it collects.
_REPLAY_ENV_STEPS = 5_000

Hours = Annotated[
    float | None, number(0.005, 1_000, help="Length of the test in hours (default: 1).")
]
Minutes = Annotated[
    float | None, number(0.3, 60_000, help="Length of the test in minutes, in place of --hours.")
]
Local = Annotated[
    bool, typer.Option("--local", help="Trains in one process, and not on an embedded Ray.")
]
Lane = Annotated[str, typer.Option(help="Kind of server: realtime (one process), or ray.")]
Mode = Annotated[str, typer.Option(help="Mode of the training: standard or test.")]
Preset = Annotated[str | None, typer.Option(help="Preset of the training.")]
Out = Annotated[
    Path | None,
    typer.Option(help="New folder for runs, registry, logs and results (default: soak-TIME)."),
]
SampleEvery = Annotated[float, number(0.5, 600, help="Seconds between two measurements.")]
SwapEvery = Annotated[
    float, number(5, 86_400, help="Seconds between two publications of a new champion.")
]
Seed = Annotated[int, number(0, 2**31 - 1, help="Seed of the training and of the traffic.")]


def soak(
    hours: Hours = None,
    minutes: Minutes = None,
    local: Local = False,
    lane: Lane = "realtime",
    mode: Mode = "standard",
    preset: Preset = None,
    set_: Settings = None,
    sample_every_s: SampleEvery = 5.0,
    swap_every_s: SwapEvery = 60.0,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Trains, serves and shows the live page for hours, and measures what grows or slows down.

    Clients drive with the served policy, a viewer watches the page, and a new champion is published
    every minute. Exit code 1 if a bound is broken. Ctrl-C ends the test with the results so far.
    """
    if hours is not None and minutes is not None:
        raise UserError("--hours and --minutes exclude each other: give one of them")
    if lane not in ("ray", "realtime"):
        raise UserError(f"there is no lane {lane!r}: there are ray and realtime")
    if sys.platform != "linux":
        raise UserError(f"rlcar soak reads /proc, which {sys.platform} lacks: run it on Linux")
    duration_s = 60.0 * minutes if minutes is not None else 3600.0 * (hours or _DEFAULT_HOURS)
    folder = (out or Path(f"soak-{time.strftime('%Y%m%d-%H%M%S')}")).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {folder} is not empty: name a new folder")
    try:
        from serve.soak.run import Plan
    except ModuleNotFoundError as error:
        raise UserError(f"a soak needs {error.name}: pip install 'rlcar[serve]'") from error
    arguments = _train_arguments(local, mode, preset, seed, set_ or [])
    plan = Plan(folder, duration_s, arguments, lane, sample_every_s, swap_every_s, seed)
    result = _run(plan)
    _print(result, folder)
    if result["broken"]:
        sys.exit(1)


def _run(plan: Any) -> dict[str, Any]:
    from rlcar.system import provenance
    from rlcar.system.durable import replace_text
    from rlcar.system.interrupt import StopRequest
    from serve.soak import picture
    from serve.soak.run import Soak
    from serve.soak.verdict import summarise

    plan.folder.mkdir(parents=True, exist_ok=True)
    load_before = os.getloadavg()[0]
    failure = None
    with StopRequest("ending the test with the results so far") as stop:
        running = Soak(plan, say, lambda: bool(stop))
        try:
            running.run()
        except (UserError, OSError) as error:
            if not running.samples:
                raise
            failure = str(error)
    if not running.samples:
        raise UserError("stopped before the first measurement, so there is nothing to report")
    result = summarise(running.samples) | {
        "failure": failure,
        "ended_early": bool(stop),
        "last_client_error": running.last_error,
        "training": list(plan.train_arguments),
        "lane": plan.lane,
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "provenance": provenance.provenance(plan.seed),
    }
    if failure is not None:
        result["broken"].append("everything keeps running")
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    replace_text(plan.folder / "soak.json", text)
    title = f"{60 * result['hours']:.1f} min, {'kept' if not result['broken'] else 'BROKEN'}"
    picture.draw(plan.folder / "soak.png", running.samples, title)
    return result


def _train_arguments(
    local: bool, mode: str, preset: str | None, seed: int, settings: list[str]
) -> list[str]:
    """Returns the options of a training that does not end by itself."""
    overrides = ["training.env_steps=1000000000", "training.checkpoint_every_s=30"]
    overrides += [f"replay.capacity_env_steps={_REPLAY_ENV_STEPS}", *settings]
    words = ["--mode", mode, "--seed", str(seed)] + (["--local"] if local else [])
    words += ["--preset", preset] if preset else []
    return words + [word for override in overrides for word in ("--set", override)]


def _print(result: dict[str, Any], folder: Path) -> None:
    from rlcar.system.tables import make_table

    table = make_table("bound", "measured", "at most", "", right=("measured", "at most"))
    for check in result["checks"]:
        value = "none" if check["value"] is None else f"{check['value']:.4g}"
        kept = "kept" if check["is_kept"] else "BROKEN"
        table.add_row(check["name"], value, f"{check['bound']:g} {check['unit']}".strip(), kept)
    screen = make_console()
    screen.print(table)
    if result["failure"]:
        console.print(result["failure"], markup=False, highlight=False)
    screen.print(f"written: {folder}/soak.json and soak.png", highlight=False, soft_wrap=True)
    for name in ("hours", "rss_slope_mb_per_min", "fd_slope", "zombies", "restarts"):
        value = "none" if result[name] is None else result[name]
        screen.print(f"figure {name}={value}", highlight=False)
