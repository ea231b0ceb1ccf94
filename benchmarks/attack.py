"""What do honest clients notice while the server is attacked?

    python benchmarks/attack.py [--lane realtime --lane direct --lane ray] [--attack NAME ...]

Runs each attack of `attacks.py` against a newly started server of each lane, with the honest
clients of `honest.py` beside it: some seconds without the attack, the attack, and the time until
the server has recovered. Attackers have an address of their own (127.0.0.2) and a process of their
own with the lowest priority, so that honest clients do not wait for a core that the attacker uses;
`--source 127.0.0.1` lets them share the honest clients' address. With `none` and
`page_none` there is no attack, for comparison.

Bounds, for each lane: honest p99 below 50 ms, no honest client refused, health checks answered
within 100 ms, server memory +100 MB at most, all recovered within 5 s, no file left open. The lane
`direct` has no front end: it may slow down, but stays below +300 MB and recovers. The exit code is
1 when a bound is broken. Ctrl-C ends the suite and writes the results so far. Writes
benchmarks/results/attack.json and attack.png.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.attack_report import (
    BOUNDS,
    NONE,
    PAGE_NONE,
    broken,
    line_of,
    needs_page,
    print_figures,
    table_of,
    write_picture,
)
from benchmarks.attacks import ATTACKS, NICENESS
from benchmarks.drawn_model import publish_drawn
from benchmarks.header import origin, print_header
from benchmarks.honest import Honest
from benchmarks.watched_server import LANES, MemoryWatch, WatchedServer, serving
from cluster.chaos.report import write_report

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "attack.json"
WARM_UP_S = 3.0
RECOVERY_LIMIT_S, FILES_WAIT_S = 30.0, 60.0
KILL_AT_MB = 1500.0  # protects this machine from an unprotected server


async def measure(
    server: WatchedServer,
    name: str,
    *,
    source: str = "127.0.0.2",
    seconds: float = 10.0,
    warm_up_s: float = WARM_UP_S,
    recovered_within_s: float = 0.05,
    niceness: int = NICENESS,
    files_wait_s: float = FILES_WAIT_S,
) -> dict[str, Any]:
    """Attacks a server with honest clients beside it; returns what they noticed.

    The server has recovered when 20 new connections in a row are answered within
    `recovered_within_s`, and it holds no more connections than before.
    """
    has_page = needs_page(name)
    async with Honest(server.port, has_page=has_page).asking():
        await asyncio.sleep(warm_up_s)
    connections, files = server.connections(), server.files()
    memory = MemoryWatch(server, KILL_AT_MB)
    memory.start()
    honest = Honest(server.port, has_page=has_page)
    async with honest.asking() as seen:
        counts = await run_attackers(server, name, source, seconds, niceness)
        ended_s = time.perf_counter()
        honest.stop()
        has_recovered = not memory.has_killed and await honest.recovers(
            RECOVERY_LIMIT_S, recovered_within_s
        )
        recovery_s = time.perf_counter() - ended_s
    if has_recovered:  # the honest clients' own connections have ended here
        while server.connections() > connections and recovery_s < RECOVERY_LIMIT_S:
            await asyncio.sleep(0.05)
            recovery_s = time.perf_counter() - ended_s
    memory.stop()
    # HAProxy keeps idle connections to the application, and closes half of them every 5 s.
    most_files = files + BOUNDS["realtime"].more_files
    while server.files() > most_files and time.perf_counter() < ended_s + recovery_s + files_wait_s:
        await asyncio.sleep(0.1)
    is_over = has_recovered and recovery_s < RECOVERY_LIMIT_S
    return {
        **seen.figures(),
        "memory_mb": round(memory.growth_mb, 1),
        "memory_before_mb": round(memory.before_mb, 1),
        "was_killed": memory.has_killed,
        "recovery_s": round(recovery_s, 2) if is_over else None,
        "files_before": files,
        "more_files": server.files() - files,
        "attacker": counts,
    }


async def run_attackers(
    server: WatchedServer, name: str, source: str, seconds: float, niceness: int = NICENESS
) -> dict[str, Any]:
    """Runs the attackers in a separate process; returns their counts."""
    if name not in ATTACKS:
        await asyncio.sleep(seconds)
        return {}
    command = [sys.executable, "-m", "benchmarks.attacks", name, "--port", str(server.port)]
    command += ["--source", source, "--seconds", str(seconds)]
    command += ["--niceness", str(niceness)]
    with subprocess.Popen(
        command, cwd=HERE.parent, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            while process.poll() is None and server.is_running():
                await asyncio.sleep(0.02)
        finally:
            process.kill()  # it has ended already, or its target has
        assert process.stdout is not None
        output = process.stdout.read()
    return json.loads(output) if output else {}


def run(options: argparse.Namespace, console: Console) -> dict[str, dict[str, Any]]:
    """Measures every lane and attack of the options; Ctrl-C returns the results so far."""
    results: dict[str, dict[str, Any]] = {}
    todo = [
        (lane, name)
        for lane in options.lane
        for name in options.attack
        if lane != "ray" or not needs_page(name)
    ]
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        publish_drawn(models, "nano")
        try:
            for done, (lane, name) in enumerate(todo):
                left_s = (time.monotonic() - began_s) / done * (len(todo) - done) if done else 0.0
                eta = f", {left_s / 60:.1f} min left" if done else ""
                console.print(f"{done + 1}/{len(todo)} {lane} {name}{eta}", highlight=False)
                found = _measure_new(lane, name, models, options)
                results.setdefault(lane, {})[name] = found
                console.print(f"  {line_of(found)}", highlight=False)
        except KeyboardInterrupt:
            console.print("interrupted: what was measured is written", highlight=False)
    return results


def _measure_new(lane: str, name: str, models: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Starts a server, attacks it, and says which bounds it broke."""
    page = ["--page"] if needs_page(name) else []
    with serving(lane, models, *page) as server:
        attacking = measure(
            server,
            name,
            source=options.source,
            seconds=options.seconds,
            niceness=options.niceness,
        )
        found = asyncio.run(attacking)
    return {**found, "broken": broken(lane, found)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [NONE, PAGE_NONE, *ATTACKS]
    parser.add_argument(
        "--lane",
        action="append",
        choices=LANES,
        help="a lane to measure; may be repeated; default: all",
    )
    parser.add_argument(
        "--attack",
        action="append",
        choices=names,
        help="an attack to run; may be repeated; default: all",
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of each attack in seconds"
    )
    parser.add_argument(
        "--niceness",
        type=int,
        default=NICENESS,
        help="niceness of the attackers; lower it if other programs are running",
    )
    parser.add_argument("--source", default="127.0.0.2", help="IP address of the attackers")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.lane, options.attack = options.lane or list(LANES), options.attack or names
    print_header("uvicorn", "ray")
    load_before = os.getloadavg()[0]
    console = Console(width=120)
    results = run(options, console)
    if not results:
        return 1
    report = {
        "lanes": results,
        "seconds": options.seconds,
        "source": options.source,
        "bounds": {lane: bounds._asdict() for lane, bounds in BOUNDS.items()},
        **origin(load_before),
    }
    write_report(options.out, report)
    write_picture(options.out.with_suffix(".png"), results)
    console.print(table_of(results))
    print_figures(results)
    return int(any(found["broken"] for attacks in results.values() for found in attacks.values()))


if __name__ == "__main__":
    sys.exit(main())
