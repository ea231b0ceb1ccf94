"""Does the policy server lose memory or files in half an hour of honest and hostile traffic?

    python benchmarks/attack_soak.py [--minutes 30] [--lane realtime]

Honest clients (`honest.py`) ask all the time. Attacks (`attacks.py`) come one after the other in an
order drawn from a seed, each from an address of its own and with the lowest priority, with a pause
after each. At the end of each pause, when the server holds honest connections alone, its memory and
its open files are noted, summed over all its processes. The slopes are fitted by least squares to
what was noted after a warm-up of a sixth of the time, 5 minutes at most.

Bounds: memory grows by less than 1 MB/min, the server has as few open files in the last third of
the time as in the first (at its best moment of each), and no honest client is refused. The exit
code is 1 when a bound is broken. Ctrl-C ends it and writes the results so far to
benchmarks/results/attack_soak.json and attack_soak.png.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from benchmarks.attack import run_attackers
from benchmarks.attacks import ATTACKS
from benchmarks.drawn_model import publish_drawn
from benchmarks.header import origin, print_header
from benchmarks.honest import Honest
from benchmarks.watched_server import LANES, MemoryWatch, WatchedServer, serving
from cluster.chaos.report import write_report
from rlcar.system.durable import replacing
from rlcar.system.interrupt import StopRequest

RESULTS = Path(__file__).parent / "results" / "attack_soak.json"
ATTACK_S, PAUSE_S = 10.0, 5.0
FIRST_S, WARM_UP_S = 3.0, 300.0
KILL_AT_MB = 4000.0
MOST_MB_PER_MIN, MOST_MORE_FILES = 1.0, 5


class Sample(NamedTuple):
    """The server in a pause between two attacks."""

    minute: float
    memory_mb: float
    files: int
    connections: int


class Soak:
    """Honest and hostile traffic, and the measurements of the server meanwhile."""

    def __init__(self, server: WatchedServer, options: argparse.Namespace, console: Console):
        self._server, self._options, self._console = server, options, console
        self._began_s = time.monotonic()
        self.samples: list[Sample] = []
        self.attacks: list[dict[str, Any]] = []

    @property
    def minutes(self) -> float:
        """Returns for how long it has run, in seconds."""
        return (time.monotonic() - self._began_s) / 60.0

    async def run(self, stop: StopRequest) -> None:
        """Attacks until the time is over, the server ends, or Ctrl-C."""
        has_page = self._options.lane != "ray"
        async with Honest(self._server.port, has_page=has_page).asking():
            await asyncio.sleep(FIRST_S)  # work that a new server does once is not measured
        rng = random.Random(self._options.seed)
        while not self._is_over(stop):
            names = [name for name, one in ATTACKS.items() if has_page or not one.needs_page]
            rng.shuffle(names)
            for name in names:
                if self._is_over(stop):
                    return
                await self._one(name, has_page)

    def _is_over(self, stop: StopRequest) -> bool:
        return bool(stop) or self.minutes >= self._options.minutes or not self._server.is_running()

    async def _one(self, name: str, has_page: bool) -> None:
        """Attacks once, with honest clients besides, and measures the server at the end."""
        minute = self.minutes
        honest = Honest(self._server.port, has_page=has_page)
        async with honest.asking() as seen:
            await run_attackers(self._server, name, self._options.source, self._options.attack_s)
            await asyncio.sleep(self._options.pause_s)
            sample = Sample(
                round(self.minutes, 3),
                round(self._server.memory_mb(self._server.pids()), 1),
                self._server.files(),
                self._server.connections(),
            )
        self.samples.append(sample)
        self.attacks.append({"attack": name, "minute": round(minute, 3), **seen.figures()})
        self._say(name, seen.figures(), sample)

    def _say(self, name: str, figures: dict[str, Any], sample: Sample) -> None:
        left_min = max(0.0, self._options.minutes - self.minutes)
        self._console.print(
            f"{sample.minute:5.1f} min {name:24s} p99 {figures['honest_p99_ms']} ms, "
            f"{figures['honest_refused']} refused, {sample.memory_mb:.0f} MB, "
            f"{sample.files} files, {sample.connections} connections; {left_min:.0f} min left",
            highlight=False,
        )


def slope_per_min(samples: list[Sample], field: str) -> float | None:
    """Fits a line by least squares; None where two minutes are not known."""
    if len(samples) < 2:
        return None
    minutes = [sample.minute for sample in samples]
    values = [float(getattr(sample, field)) for sample in samples]
    return round(float(np.polyfit(minutes, values, 1)[0]), 4)


def summary(soak: Soak, memory: MemoryWatch) -> dict[str, Any]:
    """Returns the slopes after the warm-up, and the worst figures of the honest clients."""
    warm_up_min = min(WARM_UP_S / 60.0, soak.minutes / 6.0)
    settled = [sample for sample in soak.samples if sample.minute >= warm_up_min]
    # The fewest of many: a front end keeps idle connections for some time after an attack.
    third = max(1, len(settled) // 3)
    p99s_ms = [one["honest_p99_ms"] for one in soak.attacks if one["honest_p99_ms"] is not None]
    return {
        "minutes": round(soak.minutes, 1),
        "attacks": len(soak.attacks),
        "memory_mb_per_min": slope_per_min(settled, "memory_mb"),
        "memory_first_mb": settled[0].memory_mb if settled else None,
        "memory_last_mb": settled[-1].memory_mb if settled else None,
        "memory_most_mb": round(memory.most_mb, 1),
        "files_per_min": slope_per_min(settled, "files"),
        "files_first": min((sample.files for sample in settled[:third]), default=None),
        "files_last": min((sample.files for sample in settled[-third:]), default=None),
        "honest_answers": sum(one["honest_answers"] for one in soak.attacks),
        "honest_refused": sum(one["honest_refused"] for one in soak.attacks),
        "honest_worst_p99_ms": max(p99s_ms, default=None),
    }


def broken(found: dict[str, Any]) -> list[str]:
    """Names the broken bounds; a missing measurement breaks its bound."""
    slope, files = found["memory_mb_per_min"], (found["files_first"], found["files_last"])
    tests = {
        "memory_mb_per_min": slope is not None and slope < MOST_MB_PER_MIN,
        "files": None not in files and files[1] <= files[0] + MOST_MORE_FILES,
        "honest_refused": found["honest_refused"] == 0,
        "died": not found["died"],
    }
    return [name for name, is_kept in tests.items() if not is_kept]


def write_picture(path: Path, samples: list[Sample], title: str) -> None:
    """Draws memory and files over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, figsize=(8, 5), sharex=True)
    minutes = [sample.minute for sample in samples]
    axes[0].plot(minutes, [sample.memory_mb for sample in samples], marker=".")
    axes[0].set_ylabel("memory, MB")
    axes[0].set_title(title)
    axes[1].plot(minutes, [sample.files for sample in samples], marker=".")
    axes[1].set_ylabel("open files")
    axes[1].set_xlabel("minutes")
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--lane", choices=LANES, default="realtime")
    parser.add_argument("--source", default="127.0.0.2", help="IP address of the attackers")
    parser.add_argument(
        "--attack-s", type=float, default=ATTACK_S, help="length of an attack in seconds"
    )
    parser.add_argument(
        "--pause-s", type=float, default=PAUSE_S, help="length of a pause in seconds"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the attacks")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    print_header("uvicorn", "ray")
    load_before = os.getloadavg()[0]
    page = [] if options.lane == "ray" else ["--page"]
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        publish_drawn(models, "nano")
        with serving(options.lane, models, *page) as server, StopRequest() as stop:
            memory = MemoryWatch(server, KILL_AT_MB)
            memory.start()
            soak = Soak(server, options, Console(width=140))
            asyncio.run(soak.run(stop))
            memory.stop()
            found = {**summary(soak, memory), "died": not server.is_running()}
    found["broken"] = broken(found)
    report = {
        "lane": options.lane,
        **found,
        "source": options.source,
        "samples": [sample._asdict() for sample in soak.samples],
        "each": soak.attacks,
        **origin(load_before),
    }
    write_report(options.out, report)
    write_picture(options.out.with_suffix(".png"), soak.samples, f"lane {options.lane}")
    for name, value in found.items():
        if name != "broken":
            print(f"figure attack_soak_{options.lane}_{name}={value}")
    print(f"figure attack_soak_{options.lane}_bounds_broken={len(found['broken'])}")
    return int(bool(found["broken"]))


if __name__ == "__main__":
    sys.exit(main())
