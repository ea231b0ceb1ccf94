"""Kills the process of a campaign with SIGKILL at random moments, and checks how it continues.

Half of the kills hit the campaign alone, so its jobs go on without it; the others hit jobs as well.
A third of the processes that continue are killed too, while they start and take over the jobs.
After each kill the same command must continue: it adopts the processes that still run, no job ever
has two processes, no count of failures is lost, and no job falls behind its newest checkpoint.
"""

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rlcar.campaigns import snapshot
from rlcar.runs.monitor import RunReader
from rlcar.storage import checkpoint
from rlcar.system import process_state
from rlcar.system.journal import Journal
from rlcar.system.process_usage import process_files

JOBS, SLOTS = 4, 2
_ENV_STEPS = 400_000
_RESUMES_WITHIN_S = 900.0  # a busy machine needs minutes for what takes seconds otherwise
_ENDS_WITHIN_S = 1800.0
_LONGEST_LIFE_S = 5.0  # of a campaign before it is killed
_KILLED_AT_START = 1 / 3  # probability that the process which continues is killed too
_POLL_S = 0.05


class Kill(NamedTuple):
    """One kill and what was wrong afterwards; an empty list is right."""

    victims: list[str]
    adopted: int  # processes of jobs that went on without the campaign, and then belonged to it
    resumed_after_s: float
    problems: list[str]


class _Seen(NamedTuple):
    """What must not be lost."""

    pids: dict[str, int]  # of jobs that run
    failures: dict[str, int]
    env_steps: dict[str, int]  # of the newest checkpoints


def write_campaign(folder: Path, jobs: int = JOBS, env_steps: int = _ENV_STEPS) -> Path:
    """Writes the file of a campaign of small trainings that save all the time."""
    settings = {
        "training.env_steps": env_steps,
        "training.block_length": 32,
        "training.evaluate_every_env_steps": 10 * env_steps,
        "training.checkpoint_every_s": 0.3,
        "training.log_every_s": 0.2,
        "ppo.epochs": 1,
    }
    defaults = {"local": True, "preset": "ppo", "mode": "test", "set": settings}
    tree = {
        **{"slots": SLOTS, "backoff_s": 0.2, "probe_s": 0, "stop_within_s": 60.0},
        **{"defaults": defaults, "jobs": [{"name": "job", "seeds": jobs}]},
    }
    path = folder / "kills.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def run_round(
    folder: Path, kills: int, generator: random.Random, until_s: float = math.inf
) -> list[Kill]:
    """Runs a campaign to its end while it is killed at most `kills` times; returns the kills.

    From the time `until_s` of `time.monotonic` on it is killed no more.
    """
    folder.mkdir(parents=True)
    file, runs = write_campaign(folder), folder / "runs"
    done: list[Kill] = []
    began_s = time.monotonic()
    process = _start(file, runs)
    try:
        _await_status(process, runs, 0.0)
        resumed_s = time.monotonic() - began_s
        while len(done) < kills and time.monotonic() < until_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(generator.uniform(0.0, _LONGEST_LIFE_S))
            if process.poll() is not None:
                break
            before = _seen(runs)
            victims = _kill(process, before, generator)
            began_s, began_unix_s = time.monotonic(), time.time()
            process = _start(file, runs)
            if len(done) + 1 < kills and generator.random() < _KILLED_AT_START:
                process = _kill_at_start(process, resumed_s, generator, file, runs)
                done.append(Kill(["campaign while it starts"], 0, 0.0, []))
                began_s, began_unix_s = time.monotonic(), time.time()
            problems = _await_status(process, runs, began_unix_s)
            resumed_s = time.monotonic() - began_s
            adopted, wrong = _judge(runs, before, victims)
            done.append(Kill(victims, adopted, round(resumed_s, 2), problems + wrong))
        process.wait(_ENDS_WITHIN_S)
        problems = _judge_end(process, runs)
        if done and problems:
            done[-1].problems.extend(problems)
    finally:
        process.kill()
        process.wait()
        for pid in _seen(runs).pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
    return done


def _start(file: Path, runs: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "rlcar.cli", "campaign", "run", str(file), "--runs", str(runs)]
    with (file.parent / "output.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def _kill(process: "subprocess.Popen[bytes]", before: _Seen, generator: random.Random) -> list[str]:
    jobs = sorted(before.pids)
    chosen = generator.choice([[], [], jobs[:1], jobs])
    process.kill()
    for name in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(before.pids[name], signal.SIGKILL)
    process.wait()
    return ["campaign", *chosen]


def _kill_at_start(
    process: "subprocess.Popen[bytes]",
    within_s: float,
    generator: random.Random,
    file: Path,
    runs: Path,
) -> "subprocess.Popen[bytes]":
    """Kills a campaign within the time that the last one needed to start; starts it again."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(generator.uniform(0.0, within_s))
    process.kill()
    process.wait()
    return _start(file, runs)


def _await_status(process: "subprocess.Popen[bytes]", runs: Path, after_unix_s: float) -> list[str]:
    """Waits until a new process has written the status."""
    end_s = time.monotonic() + _RESUMES_WITHIN_S
    while time.monotonic() < end_s:
        tree = process_state.parse(runs / snapshot.FOLDER / snapshot.STATUS)
        if tree and tree["at_unix_s"] > after_unix_s:
            return []
        if process.poll() is not None:
            return [f"the campaign ended with exit code {process.returncode}"]
        time.sleep(_POLL_S)
    return ["the campaign did not resume"]


def _entries(runs: Path) -> list[dict[str, Any]]:
    return [line.content for line in Journal(runs / snapshot.FOLDER / "journal.jsonl").lines]


def _seen(runs: Path) -> _Seen:
    pids: dict[str, int] = {}
    failures: dict[str, int] = {}
    for entry in _entries(runs):
        name = entry.get("job", "")
        if entry["kind"] == "started" and not process_state.is_gone(entry["process"]):
            pids[name] = entry["process"]["pid"]
        elif entry["kind"] in ("done", "failed", "stopped"):
            pids.pop(name, None)
        failures[name] = failures.get(name, 0) + (entry["kind"] == "failed")
    saves = {folder.parent.name: checkpoint.latest(folder) for folder in runs.glob("*/checkpoints")}
    env_steps = {name: save.env_steps for name, save in saves.items() if save is not None}
    return _Seen(pids, failures, env_steps)


def _judge(runs: Path, before: _Seen, victims: list[str]) -> tuple[int, list[str]]:
    """Returns how many processes were adopted, and what is wrong."""
    tree = json.loads((runs / snapshot.FOLDER / snapshot.STATUS).read_text())
    jobs = {job["name"]: job for job in tree["jobs"]}
    starts: dict[str, list[int]] = {}
    for entry in _entries(runs):
        if entry["kind"] == "started":
            starts.setdefault(entry["job"], []).append(entry["process"]["pid"])
    problems, adopted = [], 0
    for name, pid in before.pids.items():
        if name in victims:
            continue
        adopted += jobs[name]["state"] == "running" and starts[name][-1] == pid
        if starts[name][-1] != pid and jobs[name]["failures"] == before.failures.get(name, 0):
            problems.append(f"{name} was started again although its process {pid} went on")
    for name, count in before.failures.items():
        if name in jobs and jobs[name]["failures"] < count:
            problems.append(f"a failure of {name} was forgotten")
    for name, env_steps in before.env_steps.items():
        latest = checkpoint.latest(runs / name / "checkpoints")
        if latest is None or latest.env_steps < env_steps:
            problems.append(f"{name} lost its newest checkpoint")
    for name, count in _processes(runs).items():
        if count > 1:
            problems.append(f"{name} has {count} processes")
    return adopted, problems


def _processes(runs: Path) -> dict[str, int]:
    """Returns how many processes train each job."""
    found: dict[str, int] = {}
    for path in process_files("cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            # A shell is a gate that has not opened yet.
            if words[0] != "/bin/sh" and {str(runs), "train", "--name"} <= set(words):
                name = words[words.index("--name") + 1]
                found[name] = found.get(name, 0) + 1
    return found


def _judge_end(process: "subprocess.Popen[bytes]", runs: Path) -> list[str]:
    problems = [] if process.returncode == 0 else [f"ended with exit code {process.returncode}"]
    for job in snapshot.read(runs).jobs:
        state = RunReader(runs / job.name).status().state
        if (
            job.state != "done"
            or state != "finished"
            or not (runs / job.name / "report.json").exists()
        ):
            problems.append(f"{job.name} ended as {job.state}, its run as {state}")
    return problems
