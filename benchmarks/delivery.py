"""How soon is a faulty candidate rolled back, and does a rollout disturb anybody?

    python benchmarks/delivery.py                                  # all parts, then the report
    python benchmarks/delivery.py --part faults --budget-s 330     # goes on where it was stopped
    python benchmarks/delivery.py --part report

| Part | What it does |
| --- | --- |
| `rollouts` | promotes and aborts versions of real servers, each under 100 requests/s of ten cars |
| `faults` | lets candidates of real servers fail, which get 20 of the 100 requests/s |
| `clean` | clean candidates in windows of ten simulated minutes, with the code of the servers |
| `null` | equally good candidates through the A/B test and the gate, simulated |
| `recording` | `recording.py`, for its ratio of latencies |
| `report` | joins everything to `results/delivery.json` and draws `results/delivery.png` |

`--part rollouts --lane ray` does the same with two replicas on Ray Serve, for which the command
without a part has no time. Finished repetitions are kept in `--work`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from delivery_faults import CASES, read_results
from delivery_faults import measure as measure_faults
from delivery_faults import summary as faults_summary
from delivery_report import LABELS, describe_goals, draw, load_average
from delivery_rollouts import measure as measure_rollouts
from delivery_rollouts import summary as rollouts_summary
from delivery_simulated import clean_windows, draw_laps_of, null_promoted
from header import origin, print_header

from rlcar.system.durable import replace_text
from rlcar.system.provenance import commit

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/delivery.json"
PARTS = ("rollouts", "faults", "clean", "null", "recording", "report")
LANES = ("realtime", "ray")
ROLLOUTS = ("promote", "abort")


class Kept:
    """The finished repetitions of one part."""

    def __init__(self, work: Path, name: str):
        work.mkdir(parents=True, exist_ok=True)
        self.path = work / f"{name}.json"
        self.results = read_results(self.path)

    def add(self, result: dict[str, Any]) -> None:
        """Keeps one more, at once, with the commit that it was measured at."""
        result["commit"] = commit()
        result["load_average"] = load_average()
        self.results.append(result)
        replace_text(self.path, json.dumps(self.results))
        shown = {key: value for key, value in result.items() if not key.endswith("_ms")}
        print(json.dumps(shown), flush=True)


def rollouts(options: argparse.Namespace, end_s: float) -> None:
    """Makes half of the rollouts to promote and half to abort, until there are enough requests."""
    kept = Kept(options.work, f"rollouts-{options.lane}")
    while time.monotonic() + 40.0 < end_s:
        missing = [
            kind
            for kind in ROLLOUTS
            for _ in range(options.rollouts // 2 - sum(one["kind"] == kind for one in kept.results))
        ]
        requests = sum(one["requests"] for one in kept.results)
        if not missing and requests < options.requests:
            missing = list(ROLLOUTS)
        if not missing:
            return
        for result in measure_rollouts(options.lane, _in_turns(missing), end_s):
            kept.add(result)


def _in_turns(kinds: list[str]) -> list[str]:
    """Orders promotions and abortions in turns, so that both follow both."""
    halves = [[kind for kind in kinds if kind == one] for one in ROLLOUTS]
    longest = max(map(len, halves))
    return [half[index] for index in range(longest) for half in halves if index < len(half)]


def faults(options: argparse.Namespace, end_s: float) -> None:
    """Makes the missing repetitions of each fault, in turns; those that take longest come first."""
    kept = Kept(options.work, "faults")
    done = {name: sum(one["case"] == name for one in kept.results) for name in CASES}
    jobs = [
        name
        for number in range(options.repetitions)
        for name in sorted(options.case or CASES, key=lambda name: -CASES[name].longest_s)
        if done[name] <= number
    ]
    if jobs:
        laps = draw_laps_of(options.work / "laps.json")
        measure_faults(jobs, laps, end_s, kept.add)


def clean(options: argparse.Namespace, end_s: float) -> None:
    """Simulates the missing windows."""
    kept = Kept(options.work, "clean")
    laps = draw_laps_of(options.work / "laps.json")
    clean_windows(laps, range(len(kept.results), options.windows), end_s, kept.add)


def null(options: argparse.Namespace, end_s: float) -> None:
    """Simulates all equally good candidates at once."""
    kept = Kept(options.work, "null")
    if not kept.results:
        laps = draw_laps_of(options.work / "laps.json")
        kept.add(null_promoted(laps, options.candidates, lambda: time.monotonic() > end_s))


def recording(options: argparse.Namespace, end_s: float) -> None:
    """Runs `recording.py` once, and keeps its figures."""
    kept = Kept(options.work, "recording")
    if kept.results:
        return
    script = str(ROOT / "benchmarks/recording.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    figures = re.findall(r"figure recording_(\w+)=(\S+)", done.stdout)
    kept.add({name: float(value) for name, value in figures})


def commits(parts: Iterable[list[dict[str, Any]]]) -> list[str | None]:
    """Returns the distinct commits of repetitions, in order; None where one is not known."""
    return list(dict.fromkeys(one.get("commit") for part in parts for one in part))


def report(options: argparse.Namespace, load_before: float) -> None:
    """Writes the figures of all parts, and a picture."""
    names = ("rollouts-realtime", "rollouts-ray", "faults", "clean", "null", "recording")
    kept = {name: Kept(options.work, name).results for name in names}
    figures: dict[str, Any] = {}
    for lane in LANES:
        if made := kept[f"rollouts-{lane}"]:
            prefix = "" if lane == LANES[0] else f"{lane}_"
            found = rollouts_summary(made)
            figures |= {f"{prefix}{name}": value for name, value in found.items()}
    figures |= faults_summary(kept["faults"])
    if kept["clean"]:
        alarms = [one["rolled_back"] for one in kept["clean"] if one["rolled_back"]]
        figures["clean_windows"] = len(kept["clean"])
        figures["false_rollbacks"] = len(alarms)
        figures["false_rollbacks_of_100"] = round(100.0 * len(alarms) / len(kept["clean"]), 2)
        figures["false_rollbacks_reasons"] = alarms
    for one in kept["null"]:
        figures["null_candidates"] = one["candidates"]
        figures["null_promoted_of_1000"] = round(1000 * one["promoted"] / one["candidates"], 1)
        figures["null_passed_gate_of_1000"] = round(
            1000 * one["passed_gate"] / one["candidates"], 1
        )
    for one in kept["recording"]:
        figures["recording_p99_ratio"] = one["p99_ratio_realtime"]
        figures["recording_p50_ratio"] = one["p50_ratio_realtime"]
    loads = [one["load_average"] for part in kept.values() for one in part]
    tree = {
        **figures,
        "goals_reached": describe_goals(figures),
        "load_averages": {"least": min(loads), "most": max(loads)} if loads else None,
        "faults": kept["faults"],
        **origin(load_before),
    }
    tree["provenance"]["commits_of_repetitions"] = commits(kept.values())
    replace_text(RESULTS, json.dumps(tree, indent=1) + "\n")
    if kept["faults"]:
        title = f"Time to rollback, 20 requests/s by the candidate ({tree['date']})"
        draw(RESULTS.with_suffix(".png"), kept["faults"], title)
    for name, value in figures.items():
        if isinstance(value, int | float):
            print(f"figure delivery_{name}={value:g}")


def main() -> None:
    """Measures the parts named on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all, in order")
    parser.add_argument("--budget-s", type=float, default=1e9, help="longest time of the command")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/delivery-benchmark")
    parser.add_argument("--lane", choices=LANES, default=LANES[0], help="of the part rollouts")
    parser.add_argument(
        "--requests", type=int, default=40_000, help="of the part rollouts, at least"
    )
    parser.add_argument("--rollouts", type=int, default=20, help="half of them are aborted")
    parser.add_argument("--repetitions", type=int, default=20, help="of each fault")
    parser.add_argument("--case", action="append", choices=list(LABELS), help="a fault to measure")
    parser.add_argument("--windows", type=int, default=120, help="of ten simulated minutes")
    parser.add_argument("--candidates", type=int, default=1000, help="that are equally good")
    options = parser.parse_args()
    print_header("uvicorn", "numpy")
    load_before = os.getloadavg()[0]
    end_s = time.monotonic() + options.budget_s
    runs = {"rollouts": rollouts, "faults": faults, "clean": clean, "null": null}
    runs["recording"] = recording
    for part in options.part or PARTS:
        if part == "report":
            report(options, load_before)
        else:
            runs[part](options, end_s)


if __name__ == "__main__":
    main()
