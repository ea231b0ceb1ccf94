"""A small job for each back end that campaigns train with: does it work on this host?"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

_JOB_WITHIN_S = 900.0  # a first compilation on a slow host takes minutes
_LOOK_WITHIN_S = 300.0
_LONGEST_REASON = 300  # characters


class SmallJob(NamedTuple):
    """A training that takes seconds to a few minutes, most of them for compiling."""

    back_end: str
    options: tuple[str, ...]  # of `rlcar train`
    platforms: str = "cpu"  # JAX_PLATFORMS; JAX must be able to use the first of them
    needs: str | None = None  # package without which the job is left out


class Result(NamedTuple):
    """How a small job ended."""

    back_end: str
    state: Literal["passed", "failed", "not installed"]
    seconds: float
    reason: str = ""  # of a failure: the last line that the job has printed
    log: Path | None = None


_SHORT = ("--mode", "test", "--set", "training.env_steps=1024")


def _atari_game(back_end: str) -> tuple[str, ...]:
    settings = (
        f"environment.backend={back_end}",
        "environment.time_limit_steps=50",
        "training.cars=4",
        "training.env_steps=1040",
        "training.evaluate_every_env_steps=1040",
    )
    options = ("--local", "--preset", "ppo-atari-small", "--env", "ALE/Pong-v5")
    return (*options, *(option for setting in settings for option in ("--set", setting)))


JOBS = (
    SmallJob("race in one process", ("--local", *_SHORT)),
    SmallJob("race on Ray", (*_SHORT, "--simulators", "1"), needs="ray"),
    SmallJob("Atari with ale-py", _atari_game("ale"), needs="ale_py"),
    SmallJob("Atari with EnvPool", _atari_game("envpool"), needs="envpool"),
)
ON_A_CARD = SmallJob("race on a card", ("--local", *_SHORT), platforms="cuda,cpu")


def run_small_jobs(jobs: tuple[SmallJob, ...], folder: Path) -> Iterator[Result]:
    """Runs jobs one after another, each in a process of its own; yields each result at its end."""
    for number, job in enumerate(jobs):
        if job.needs is not None and importlib.util.find_spec(job.needs) is None:
            yield Result(job.back_end, "not installed", 0.0)
        else:
            yield _run(job, folder, f"job-{number}")


def _run(job: SmallJob, folder: Path, name: str) -> Result:
    command = [sys.executable, "-m", "rlcar.cli", "train", *job.options]
    command += ["--runs", str(folder), "--name", name]
    log = folder / f"{name}.log"
    environment = os.environ | {"JAX_PLATFORMS": job.platforms}
    started_s = time.monotonic()
    if job.platforms != "cpu" and (found := _default_backend(environment)) != "gpu":
        # JAX would train on the CPU without a word.
        hint = f"JAX uses {found or 'no device'}: pip install 'rlcar[gpu]', and try nvidia-smi"
        return Result(job.back_end, "failed", time.monotonic() - started_s, hint)
    with log.open("wb") as output:
        # A process group of its own: Ctrl-C and a time-out end all that the job has started.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        reason = None
        try:
            process.wait(_JOB_WITHIN_S)
        except subprocess.TimeoutExpired:
            reason = f"not complete after {_JOB_WITHIN_S:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = time.monotonic() - started_s
    if process.returncode == 0:
        return Result(job.back_end, "passed", seconds)
    return Result(job.back_end, "failed", seconds, reason or _last_line(log), log)


def _default_backend(environment: dict[str, str]) -> str:
    command = [sys.executable, "-W", "ignore", "-c", "import jax; print(jax.default_backend())"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=_LOOK_WITHIN_S,
        )
    except subprocess.TimeoutExpired:  # a driver that does not answer
        return ""
    return done.stdout.strip()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "it has printed nothing")
    return last[:_LONGEST_REASON]
