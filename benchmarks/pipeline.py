"""Does a pipeline promote a better candidate, and stop two bad ones?

    python benchmarks/pipeline.py

A real server follows a registry and records; a fleet of simulated cars (fleet.py) drives with it
and reports laps. `rlcar pipeline` runs three times, as cron would start it:

1. The champion imitates a slow hand-written driver. People drive half of the cars, and a candidate
   that imitates the recorded sessions is quicker: it passes the gates, shadow and canary, and is
   promoted.
2. In the next recording, left and right of the steering are exchanged. All numbers are in range,
   so the validation passes; the gate of simulation stops the candidate.
3. The third candidate imitates a quick driver whose steering trusts single rays, and passes the
   gates. But in traffic a fifth of all rays now report nothing, which the simulation does not know:
   it is rolled back by the reported laps.

Writes benchmarks/results/pipeline.json and pipeline.png: every lap and the versions' means over
time. All files stay in runs/pipeline-benchmark, which a repetition replaces.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from header import origin, print_header
from matplotlib.figure import Figure
from offline_data import NoisyDriver, record_drivers
from watched_server import WatchedServer, serving

from cluster.pipeline.journal import runs
from cluster.pipeline.recordings import find_new
from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.datasets import Dataset, DatasetWriter
from rlcar.devices import compile_cache
from rlcar.errors import DatasetError
from rlcar.evaluation.json_file import write_json
from rlcar.evaluation.pictures import save_figure
from rlcar.offline.candidates import train_candidates
from rlcar.offline.data_settings import candidate_configs
from rlcar.registry import Registry

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "runs" / "pipeline-benchmark"
NARROW = RaceConfig(track=TrackConfig(half_width_px=20.0))
# Traffic differs from the simulation: sensors are noisy, and in the third part rays are lost.
NOISE = {"noise_px": {"low": 2.0, "high": 2.0}}
TRAFFIC: dict[str, Any] = {"sensors": NOISE}
RAIN: dict[str, Any] = {"sensors": {**NOISE, "dropout": {"low": 0.2, "high": 0.2}}}
SLOW = (NoisyDriver("careful", 0.0, 0.1),)
QUICK = (NoisyDriver("longest_ray", 0.0, 0.1),)
MEAN_OF_LAPS = 12
AFTERWARDS_S = 15.0
FEWEST_EPISODES, FEWEST_TRANSITIONS = 60, 40_000
SERVER = ("--record-limit-mb", "400", "--set", "record_flush_s=4", "--set", "deadline_ms=1000")
EXPECTED = {"better": 0, "corrupted": 3, "bad-in-traffic": 4}


UPDATES = 600  # train steps of 256 recorded transitions each
BC = [f"training.{name}={128 * UPDATES}" for name in ("env_steps", "evaluate_every_env_steps")]


def pipeline_file(name: str, recordings: Path, pause: str) -> Path:
    """Writes the file of a pipeline; the steps of its rollout take seconds instead of minutes."""
    tree = {
        "name": name,
        "folder": str(WORK / "pipelines" / name),
        "registry": str(WORK / "models"),
        "collect": {"recordings": str(recordings), "minimumEpisodes": FEWEST_EPISODES},
        "train": {"offline": {"algorithms": ["bc"], "settings": BC}},
        "gates": {
            "simulation": {"tracks": 64},
            "offPolicyEvaluation": {"allowUnknown": True, "updates": 1000, "transitions": 20_000},
        },
        "rollout": {
            "strategy": {
                "canary": {
                    "steps": [
                        {"shadow": {"weight": 100, "duration": "5s"}},
                        {"setWeight": 30},
                        {"pause": {"duration": pause}},
                        {"setWeight": 60},
                        {"pause": {"duration": pause}},
                    ]
                }
            }
        },
        "rolloutTimeout": "5m",
    }
    path = WORK / f"{name}.yaml"
    path.write_text(json.dumps(tree, indent=1))  # JSON is YAML
    return path


def make_champion() -> int:
    """Publishes the mediocre first champion."""
    data = record_drivers(WORK / "first", NARROW, SLOW, 15_000, 0)
    trained, _ = train_candidates(
        WORK / "champion", candidate_configs(data, ["bc"], "standard", BC, 0), say
    )
    registry = Registry(WORK / "models")
    version = registry.publish(trained["bc"].folder, "imitates a slow driver")
    registry.promote(version.number)
    return version.number


def exchange_steering(source: Path, target: Path) -> None:
    """Copies recordings with the sign of every steering action changed."""
    for folder in sorted(path.parent for path in source.glob("*/dataset.json")):
        data = Dataset.open(folder)
        with DatasetWriter(target / folder.name, data.description) as writer:
            for episode in data.episodes_iter():
                action = episode.action * np.array([-1.0, 1.0], np.float32)
                writer.append(episode._replace(action=action))


@contextlib.contextmanager
def fleet(server: WatchedServer, name: str, race: Mapping[str, Any], people: int) -> Iterator[None]:
    """Lets cars drive with the server until the block ends."""
    command = [sys.executable, str(ROOT / "benchmarks" / "fleet.py")]
    command += [f"http://127.0.0.1:{server.port}", "--laps", str(WORK / "laps.jsonl")]
    command += ["--name", name, "--people", str(people), "--race", json.dumps(race)]
    with (WORK / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield
            if process.poll() is not None:
                raise RuntimeError(f"the fleet has ended: see {log.name}")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_for_episodes(recordings: Path) -> int:
    """Waits until servers have recorded enough; returns the number of transitions."""
    while True:
        with contextlib.suppress(DatasetError):  # nothing is written yet
            found = find_new(recordings, {})
            if found.transitions >= FEWEST_TRANSITIONS and found.episodes >= FEWEST_EPISODES:
                return found.transitions
        time.sleep(1.0)


def run(path: Path) -> dict[str, Any]:
    """Runs the pipeline as cron does; returns its end, and what it measured."""
    name = path.stem
    began_s = time.time()
    say(f"{name} begins")
    with (WORK / f"{name}.log").open("w") as log:
        command = [sys.executable, "-m", "rlcar.cli", "pipeline", str(path), "--once"]
        code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    found = runs(WORK / "pipelines" / name)
    if code != EXPECTED[name]:
        raise RuntimeError(f"{name} ended with {code}, not {EXPECTED[name]}: see {log.name}")
    entries, values = found[-1].entries(), found[-1].values()
    say(f"{name}: {entries[-1].outcome}: {entries[-1].sentence}")
    gates = {}
    for gate in sorted((found[-1].folder / "gates").glob("*-gate.json")):
        tree = json.loads(gate.read_text())
        gates[gate.stem] = {"passed": tree["passed"], "reason": tree["reason"]}
    return {
        "exit_code": code,
        "outcome": entries[-1].outcome,
        "reason": entries[-1].sentence,
        "began_s": began_s,
        "ended_s": time.time(),
        "stage_seconds": {one.stage: round(one.ended_s - one.began_s, 1) for one in entries},
        "gates": gates,
        "episodes": values.get("episodes"),
        "transitions": values.get("transitions"),
        "candidate": values.get("candidate"),
        "answers": values.get("answers"),
        "shadow_pairs": values.get("shadow_pairs"),
        "evidence": values.get("evidence"),
        "weights": values.get("weights"),
    }


def read_laps() -> list[dict[str, Any]]:
    """Returns every lap that no person drove."""
    laps = [json.loads(line) for line in (WORK / "laps.jsonl").read_text().splitlines()]
    return [lap for lap in laps if not lap["human"]]


def by_version(laps: list[dict[str, Any]], since_s: float, until_s: float) -> dict[str, Any]:
    """Returns the number, mean reward and success of the laps of each version in an interval."""
    inside = [lap for lap in laps if since_s <= lap["time_s"] <= until_s]
    return {
        str(version): {
            "laps": len(own),
            "reward": float(np.mean([lap["reward"] for lap in own])),
            "success": float(np.mean([lap["success"] for lap in own])),
        }
        for version in sorted({lap["version"] for lap in inside if lap["version"] is not None})
        if (own := [lap for lap in inside if lap["version"] == version])
    }


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    """Runs the three parts, and writes the results."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    load, began_s = os.getloadavg()[0], time.time()
    print_header("jax")
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    say(f"version {make_champion()} is champion")
    sessions, parts = WORK / "sessions", {}
    with serving("direct", WORK / "models", "--record", str(sessions), *SERVER) as server:
        with fleet(server, "fleet", TRAFFIC, 2):
            say(f"{wait_for_episodes(sessions):,} transitions are recorded")
            parts["better"] = run(pipeline_file("better", sessions, "45s"))
            exchange_steering(sessions, WORK / "corrupted-sessions")
            corrupted = pipeline_file("corrupted", WORK / "corrupted-sessions", "25s")
            parts["corrupted"] = run(corrupted)
        record_drivers(WORK / "quick-sessions" / "server-1", NARROW, QUICK, FEWEST_TRANSITIONS, 1)
        with fleet(server, "other-fleet", RAIN, 0):
            quick = pipeline_file("bad-in-traffic", WORK / "quick-sessions", "90s")
            parts["bad-in-traffic"] = run(quick)
            time.sleep(AFTERWARDS_S)  # the picture shows what follows
    write_results(parts, began_s, load)


def write_results(parts: dict[str, Any], began_s: float, load: float) -> None:
    """Writes the JSON file and the picture."""
    laps = read_laps()
    for part in parts.values():
        if part["weights"]:
            part["kpis"] = by_version(laps, part["weights"][0][0], part["ended_s"])
    result = {
        **origin(load),
        "seconds": round(time.time() - began_s, 1),
        "laps": len(laps),
        "traffic": TRAFFIC,
        "traffic_of_the_third_part": RAIN,
        "parts": parts,
    }
    draw(RESULTS / "pipeline.png", parts, laps, began_s)
    write_json(RESULTS / "pipeline.json", result)
    for name, part in parts.items():
        print(f"figure pipeline_{name.replace('-', '_')}_exit_code={part['exit_code']}")
    print(f"figure pipeline_seconds={result['seconds']}")


def draw(path: Path, parts: Mapping[str, Any], laps: list[dict[str, Any]], began_s: float) -> None:
    """Draws reward and success of every lap by version, and the weight of the candidates."""
    figure = Figure(figsize=(10.0, 6.5), dpi=130, layout="constrained", facecolor="white")
    reward, success, weight = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1.3, 1))
    colours = ("#2563a8", "#2f8f4e", "#d1242f", "#e8a33d")
    for index, version in enumerate(sorted({one["version"] for one in laps} - {None})):
        own = [lap for lap in laps if lap["version"] == version]
        times = np.array([lap["time_s"] for lap in own]) - began_s
        colour = colours[index % len(colours)]
        reward.plot(
            times, [one["reward"] for one in own], ".", color=colour, markersize=2, alpha=0.5,
            label=f"version {version}",
        )  # fmt: skip
        window = min(MEAN_OF_LAPS, len(own))
        means = np.convolve([one["success"] for one in own], np.ones(window) / window, "valid")
        success.plot(times[window - 1 :], 100 * means, color=colour)
    for row, (name, part) in enumerate(parts.items()):
        for axes in (reward, success, weight):
            axes.axvspan(
                part["began_s"] - began_s, part["ended_s"] - began_s, color="#6e7781", alpha=0.1
            )
        reward.text(
            part["began_s"] - began_s, 1.02 + 0.07 * (row % 2), f"{name}: {part['outcome']}",
            fontsize=8, transform=reward.get_xaxis_transform(),
        )  # fmt: skip
        if part["weights"]:
            times = [one[0] - began_s for one in part["weights"]]
            times.append(part["ended_s"] - began_s)
            shares = [one[1] for one in part["weights"]]
            weight.step(times, [*shares, shares[-1]], where="post", color=colours[1])
    reward.set_ylabel("reward of a lap")
    reward.legend(fontsize=8, frameon=False, loc="lower left")
    success.set_ylabel(f"laps finished [%]\n(mean of {MEAN_OF_LAPS})")
    success.set_ylim(-5.0, 105.0)
    weight.set_ylabel("candidate's\nsessions [%]")
    weight.set_xlabel("seconds; grey: a pipeline runs")
    for axes in (reward, success, weight):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


if __name__ == "__main__":
    compile_cache.prepare_jax()
    main()
