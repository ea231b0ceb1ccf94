"""How close do campaigns come to the longest-first bound, does their ETA hold, and do they survive?

    python benchmarks/campaign.py simulated [--campaigns 200]
    python benchmarks/campaign.py kills [--kills 50] [--minutes 20]
    python benchmarks/campaign.py small FILE

`simulated` drives the real scheduler with synthetic durations and failures. `kills` kills real
campaigns of small trainings with SIGKILL at random moments, at most for some minutes. `small` runs
the campaign of a file to its end; meanwhile it kills one job twice and freezes another (SIGSTOP),
and a job that cannot work is added. Results go into `benchmarks/results/campaign.json`.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.campaign_kills import run_round
from benchmarks.campaign_simulated import Outcome, simulate
from benchmarks.header import origin, print_header
from rlcar.campaigns import snapshot
from rlcar.system import process_state
from rlcar.system.durable import replace_text

RESULTS = Path(__file__).parent / "results" / "campaign.json"
_POLL_S = 0.5
_SMALL_WITHIN_S = 6 * 3600.0


def simulated(campaigns: int) -> dict[str, Any]:
    """Simulates campaigns and judges their makespans and intervals."""
    outcomes = [simulate(seed) for seed in range(campaigns)]
    ratios = np.array([one.makespan_s / one.bound_s for one in outcomes])
    # One report of each campaign, at a random moment: reports of one campaign are not independent.
    generator = np.random.default_rng(0)
    chosen = [_holds(one)[generator.integers(len(one.reports))] for one in outcomes if one.reports]
    everything = [held for one in outcomes for held in _holds(one)]
    widths = [
        (report.eta.high_s - report.eta.low_s) / max(one.makespan_s - report.at_s, 1.0)
        for one in outcomes
        for report in one.reports
    ]
    return {
        "campaigns": campaigns,
        "makespan_over_bound": float(ratios.mean()),
        "makespan_over_bound_worst": float(ratios.max()),
        "makespan_over_bound_p95": float(np.quantile(ratios, 0.95)),
        "eta_coverage": float(np.mean(chosen)),
        "eta_coverage_all_reports": float(np.mean(everything)),
        "eta_width_share": float(np.median(widths)),
        "failures": sum(one.failures for one in outcomes),
        "mean_hours": float(np.mean([one.makespan_s for one in outcomes])) / 3600.0,
    }


def _holds(outcome: Outcome) -> list[bool]:
    return [
        report.at_s + report.eta.low_s <= outcome.makespan_s <= report.at_s + report.eta.high_s
        for report in outcome.reports
    ]


def killed(kills: int, minutes: float) -> dict[str, Any]:
    """Kills campaigns until there were enough kills, or the time is over."""
    generator = random.Random(0)
    done = []
    with tempfile.TemporaryDirectory(prefix="rlcar-kills-") as folder:
        rounds, until_s = 0, time.monotonic() + 60.0 * minutes
        while len(done) < kills and time.monotonic() < until_s:
            rounds += 1
            done += run_round(Path(folder) / str(rounds), kills - len(done), generator, until_s)
            right = sum(not kill.problems for kill in done)
            print(f"round {rounds}: {len(done)} of {kills} kills, {right} resumed", flush=True)
    resumed_s = [kill.resumed_after_s for kill in done if kill.resumed_after_s > 0.0]
    return {
        "kills": len(done),
        "kills_while_it_started": len(done) - len(resumed_s),
        "kills_resumed": sum(not kill.problems for kill in done),
        "campaigns_run_to_their_end": rounds,
        "processes_adopted": sum(kill.adopted for kill in done),
        "resumed_after_s_median": float(np.median(resumed_s)),
        "problems": [problem for kill in done for problem in kill.problems],
    }


def small(file: Path) -> dict[str, Any]:
    """Runs a campaign; one job is killed twice, one is frozen, and one more cannot work."""
    tree = yaml.safe_load(file.read_text())
    tree["jobs"].append({"name": "cannot-work", "env": "rlcar/NoSuch-v0"})
    with tempfile.TemporaryDirectory(prefix="rlcar-small-") as name:
        folder = Path(name)
        (folder / "campaign.yaml").write_text(yaml.safe_dump(tree))
        runs = folder / "runs"
        command = [sys.executable, "-m", "rlcar.cli", "campaign", "run"]
        command += [str(folder / "campaign.yaml"), "--runs", str(runs)]
        began_s = time.monotonic()
        process = subprocess.Popen(command)
        try:
            hurt = _hurt(process, runs)
            process.wait(_SMALL_WITHIN_S)
        finally:
            process.terminate()
            process.wait()
        last = snapshot.read(runs)
        picture = RESULTS.with_suffix(".png")
        picture.write_bytes((runs / snapshot.FOLDER / "report.png").read_bytes())
    jobs = {job.name: job for job in last.jobs}
    return {
        "jobs": len(jobs),
        "jobs_done": last.count("done"),
        "jobs_failed": [job.name for job in last.jobs if job.state == "failed"],
        "failures": {
            name: [job.failures, job.failure] for name, job in jobs.items() if job.failures
        },
        "hurt": hurt,
        "minutes": (time.monotonic() - began_s) / 60.0,
    }


def _hurt(process: "subprocess.Popen[bytes]", runs: Path) -> dict[str, str]:
    """Kills the first job that makes progress twice, and stops the second one once."""
    hurt: dict[str, str] = {}
    kills = 0
    while process.poll() is None and (kills < 2 or len(hurt) < 2):
        time.sleep(_POLL_S)
        if not (runs / snapshot.FOLDER / snapshot.STATUS).exists():
            continue
        for job in snapshot.read(runs).jobs:
            about = process_state.read(runs / job.name)
            is_new = hurt.get(job.name) != str(about.get("pid"))
            if job.state != "running" or job.done <= 0 or process_state.is_gone(about):
                continue
            first = next(iter(hurt), job.name)
            if job.name == first and kills < 2 and is_new:
                hurt[job.name] = str(about["pid"])
                kills += 1
                os.kill(about["pid"], signal.SIGKILL)
            elif job.name != first and len(hurt) < 2:
                hurt[job.name] = str(about["pid"])
                os.kill(about["pid"], signal.SIGSTOP)
    return dict(zip(hurt, ("killed twice", "frozen"), strict=False))


def main() -> None:
    """Runs one part and adds its figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("simulated").add_argument("--campaigns", type=int, default=200)
    kills = parts.add_parser("kills")
    kills.add_argument("--kills", type=int, default=50)
    kills.add_argument("--minutes", type=float, default=1e6)
    parts.add_parser("small").add_argument("file", type=Path)
    arguments = parser.parse_args()
    print_header("numpy")
    load = os.getloadavg()[0]
    if arguments.part == "simulated":
        figures = simulated(arguments.campaigns)
    elif arguments.part == "kills":
        figures = killed(arguments.kills, arguments.minutes)
    else:
        figures = small(arguments.file)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[arguments.part] = {**figures, "origin": origin(load)}
    for name in ("makespan_over_bound", "eta_coverage", "kills_resumed"):
        if name in figures:
            results[name] = figures[name]
    replace_text(RESULTS, json.dumps(results, indent=1) + "\n")
    for name, value in figures.items():
        if isinstance(value, int | float):
            print(f"figure {name}={value:.6g}")


if __name__ == "__main__":
    main()
