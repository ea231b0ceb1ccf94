"""Runs a campaign: a queue of trainings, N at a time, each a process of its own."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rlcar.campaigns.config import Campaign, Job
from rlcar.errors import UserError
from rlcar.runs.monitor import RunReader, RunStatus
from rlcar.system import process_state
from rlcar.system.heartbeat import patience_s
from rlcar.system.interrupt import StopRequest
from rlcar.system.lease import WAIT_S

_TICK_S = 0.2
_LOOK_EVERY_S = 2.0
_BACKOFF_AT_MOST_S = 600.0
# A process that is started again imports for up to a minute, then waits for a lost host's lease.
_MAY_WAIT_S = WAIT_S + 60.0
# What a run's folder says when its process has nothing left to do but end.
_AFTER = ("dead", "failed", "stopped", "finished", "unknown")


@dataclasses.dataclass
class JobState:
    """One job of the queue; `state` is waiting, running, pausing, done or failed."""

    job: Job
    env_steps_total: int
    state: str = "waiting"
    failures: int = 0
    reason: str = ""  # of the last failure
    not_before_s: float = 0.0
    started_s: float = 0.0
    process: Any = None
    reader: RunReader | None = None
    run: RunStatus | None = None  # as it was at the last look

    @property
    def env_steps(self) -> int:
        """How far it came."""
        if self.state == "done":
            return self.env_steps_total
        return min(self.run.env_steps, self.env_steps_total) if self.run else 0


class CampaignRun:
    """Holds the queue; `step` starts, looks and restarts, and never waits."""

    def __init__(self, campaign: Campaign, runs: Path):
        """Jobs whose run in `runs` is complete count as done."""
        self._campaign, self._runs = campaign, runs
        (runs / "logs").mkdir(parents=True, exist_ok=True)
        self.jobs = [
            JobState(job, job.resolved().training.env_steps) for job in campaign.longest_first()
        ]
        self._looked_s = 0.0
        for one in self.jobs:
            self._look(one)
            if one.run and one.run.state == "finished" and self._has_report(one):
                one.state = "done"

    def step(self) -> None:
        """Fills free slots, takes in what ended, ends what is frozen."""
        now_s = time.monotonic()
        should_look = now_s - self._looked_s >= _LOOK_EVERY_S
        self._looked_s = now_s if should_look else self._looked_s
        for one in self.jobs:
            if one.state == "running":
                if one.process.poll() is not None:
                    self._ended(one, now_s)
                elif should_look:
                    self._look(one)
                    if self._is_frozen(one, now_s):
                        end_process(one.process, 5.0)
                        self._failed(one, f"frozen for {self._silent_s(one, now_s):.0f} s", now_s)
            elif one.state == "pausing" and now_s >= one.not_before_s:
                one.state = "waiting"
        running = sum(one.state == "running" for one in self.jobs)
        for one in self.jobs:
            if one.state == "waiting" and running < self._campaign.slots:
                self._start(one, now_s)
                running += 1

    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return all(one.state in ("done", "failed") for one in self.jobs)

    def stop(self) -> None:
        """Lets every running job save, all at once, and waits for them."""
        running = [one for one in self.jobs if one.state == "running"]
        for one in running:
            one.process.terminate()
        end_s = time.monotonic() + self._campaign.stop_within_s
        for one in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.1, end_s - time.monotonic()))
            end_process(one.process, 0.0)
            one.state = "waiting"
            self._look(one)

    def _start(self, one: JobState, now_s: float) -> None:
        command = [sys.executable, "-m", "rlcar.cli", "train", *one.job.options()]
        command += ["--runs", str(self._runs), "--name", one.job.name, "--resume", "auto"]
        with (self._runs / "logs" / f"{one.job.name}.log").open("ab") as log:
            # A group of its own: Ctrl-C is ours to pass on, and all it starts can be ended with it.
            one.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        one.state, one.started_s = "running", now_s

    def _ended(self, one: JobState, now_s: float) -> None:
        self._look(one)
        code = one.process.returncode
        if code == 0:
            one.state = "done"
            return
        self._failed(one, f"signal {-code}" if code < 0 else f"exit code {code}", now_s)

    def _failed(self, one: JobState, reason: str, now_s: float) -> None:
        one.failures += 1
        one.reason = reason
        if one.failures > self._campaign.retries:
            one.state = "failed"
            return
        pause_s = self._campaign.backoff_s * 2 ** (one.failures - 1)
        one.state, one.not_before_s = "pausing", now_s + min(pause_s, _BACKOFF_AT_MOST_S)

    def _look(self, one: JobState) -> None:
        with contextlib.suppress(UserError):  # it has not yet begun
            one.reader = one.reader or RunReader(
                self._runs / one.job.name, self._campaign.frozen_after_s
            )
            one.run = one.reader.status()

    def _is_frozen(self, one: JobState, now_s: float) -> bool:
        about = process_state.read(self._runs / one.job.name)
        is_its_own = process_state.was_here(about) and about["pid"] == one.process.pid
        if one.run is not None and is_its_own and one.run.state not in _AFTER:
            return one.run.state == "frozen"
        # What the folder says is of a former process, of another host perhaps: the new one
        # imports, fetches a run from the storage, or waits for the other one's lease to expire.
        limit_s = max(patience_s("starting", self._campaign.frozen_after_s), _MAY_WAIT_S)
        return self._silent_s(one, now_s) > limit_s

    def _silent_s(self, one: JobState, now_s: float) -> float:
        signs = [now_s - one.started_s]  # what came before this start does not count
        if one.run is not None and one.run.silent_s is not None:
            signs.append(one.run.silent_s)
        elif seen := process_state.Observer(self._runs / one.job.name).sign_of_life(time.time()):
            signs.append(seen.silent_s)
        return min(signs)

    def _has_report(self, one: JobState) -> bool:
        return (self._runs / one.job.name / "report.json").exists()


def run_campaign(run: CampaignRun, show: Any) -> bool:
    """Runs all jobs, showing the state now and then; returns whether it was asked to stop.

    Ctrl-C and SIGTERM let every job save before this ends.
    """
    with StopRequest() as stop:
        try:
            while not stop and not run.is_over():
                run.step()
                show(run.jobs)
                time.sleep(_TICK_S)
        finally:
            run.stop()
            show(run.jobs)
        return bool(stop)


def end_process(process: Any, grace_s: float) -> None:
    """SIGTERM, and after `grace_s` SIGKILL, for a process and all of its group."""
    if grace_s > 0 and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
