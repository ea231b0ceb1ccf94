"""Runs a campaign: a queue of trainings, some at a time, each in a process of its own."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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
_KILL_AFTER_S = 5.0  # between SIGTERM and SIGKILL for a frozen process
_SHORTEST_WAIT_S = 0.1
# A process that is started again imports for up to a minute, then waits for a lost host's lease.
_MAY_WAIT_S = WAIT_S + 60.0
# States of a run whose process is about to end, or has ended.
_ENDING = ("dead", "failed", "stopped", "finished", "unknown")


@dataclasses.dataclass
class JobState:
    """One job of the queue; `state` is waiting, running, pausing, done or failed."""

    job: Job
    env_steps_total: int
    state: str = "waiting"
    failures: int = 0
    freezes: int = 0  # of the failures, those that ended a frozen process
    reason: str = ""  # of the last failure
    not_before_s: float = 0.0  # monotonic time of the next start
    started_s: float = 0.0  # monotonic time of the last start
    process: "subprocess.Popen[bytes] | None" = None
    reader: RunReader | None = None
    run: RunStatus | None = None  # as it was at the last look

    @property
    def its_process(self) -> "subprocess.Popen[bytes]":
        """The process of a job that was started."""
        assert self.process is not None, self.job.name
        return self.process

    @property
    def env_steps(self) -> int:
        """Env steps that the job has completed."""
        if self.state == "done":
            return self.env_steps_total
        return min(self.run.env_steps, self.env_steps_total) if self.run else 0


class CampaignRun:
    """Holds the queue; `step` starts, observes and restarts jobs, and never waits."""

    def __init__(self, campaign: Campaign, runs: Path):
        """Jobs whose run in `runs` is complete count as done."""
        self._campaign, self._runs = campaign, runs
        (runs / "logs").mkdir(parents=True, exist_ok=True)
        self.jobs = [
            JobState(job, job.resolved().training.env_steps) for job in campaign.longest_first()
        ]
        self._looked_s = 0.0
        for entry in self.jobs:
            self._look(entry)
            if entry.run and entry.run.state == "finished" and self._has_report(entry):
                entry.state = "done"

    @property
    def slots(self) -> int:
        """Number of jobs that may run at once."""
        return self._campaign.slots

    def step(self) -> None:
        """Starts jobs in free slots, notices those that ended and ends those that are frozen."""
        now_s = time.monotonic()
        should_look = now_s - self._looked_s >= _LOOK_EVERY_S
        self._looked_s = now_s if should_look else self._looked_s
        for entry in self.jobs:
            if entry.state == "running":
                if entry.its_process.poll() is not None:
                    self._ended(entry, now_s)
                elif should_look:
                    self._look(entry)
                    if self._is_frozen(entry, now_s):
                        end_process(entry.its_process, _KILL_AFTER_S)
                        reason = f"frozen for {self._silent_s(entry, now_s):.0f} s"
                        entry.freezes += 1
                        self._failed(entry, reason, now_s)
            elif entry.state == "pausing" and now_s >= entry.not_before_s:
                entry.state = "waiting"
        running = sum(entry.state == "running" for entry in self.jobs)
        for entry in self.jobs:
            if entry.state == "waiting" and running < self._campaign.slots:
                self._start(entry, now_s)
                running += 1

    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return all(entry.state in ("done", "failed") for entry in self.jobs)

    def stop(self) -> None:
        """Lets all running jobs save at the same time, and waits for them."""
        running = [entry for entry in self.jobs if entry.state == "running"]
        for entry in running:
            entry.its_process.terminate()
        end_s = time.monotonic() + self._campaign.stop_within_s
        for entry in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                entry.its_process.wait(max(_SHORTEST_WAIT_S, end_s - time.monotonic()))
            end_process(entry.its_process, 0.0)
            entry.state = "waiting"
            self._look(entry)

    def _start(self, entry: JobState, now_s: float) -> None:
        command = [sys.executable, "-m", "rlcar.cli", "train", *entry.job.options()]
        command += ["--runs", str(self._runs), "--name", entry.job.name, "--resume", "auto"]
        with (self._runs / "logs" / f"{entry.job.name}.log").open("ab") as log:
            # A process group of its own: the campaign passes Ctrl-C on, and can end all processes
            # that the job has started.
            entry.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        entry.state, entry.started_s = "running", now_s

    def _ended(self, entry: JobState, now_s: float) -> None:
        self._look(entry)
        code = entry.its_process.returncode
        if code == 0:
            entry.state = "done"
            return
        self._failed(entry, f"signal {-code}" if code < 0 else f"exit code {code}", now_s)

    def _failed(self, entry: JobState, reason: str, now_s: float) -> None:
        entry.failures += 1
        entry.reason = reason
        if entry.failures > self._campaign.retries:
            entry.state = "failed"
            return
        pause_s = self._campaign.backoff_s * 2 ** (entry.failures - 1)
        entry.state, entry.not_before_s = "pausing", now_s + min(pause_s, _BACKOFF_AT_MOST_S)

    def _look(self, entry: JobState) -> None:
        with contextlib.suppress(UserError):  # the run has not begun yet
            entry.reader = entry.reader or RunReader(
                self._runs / entry.job.name, self._campaign.frozen_after_s
            )
            entry.run = entry.reader.status()

    def _is_frozen(self, entry: JobState, now_s: float) -> bool:
        about = process_state.read(self._runs / entry.job.name)
        is_its_own = process_state.was_here(about) and about["pid"] == entry.its_process.pid
        if entry.run is not None and is_its_own and entry.run.state not in _ENDING:
            return entry.run.state == "frozen"
        # The folder describes an earlier process, perhaps of another host. The new process still
        # imports, fetches a run from the storage, or waits for the other's lease to expire.
        limit_s = max(patience_s("starting", self._campaign.frozen_after_s), _MAY_WAIT_S)
        return self._silent_s(entry, now_s) > limit_s

    def _silent_s(self, entry: JobState, now_s: float) -> float:
        signs = [now_s - entry.started_s]  # signs before this start do not count
        if entry.run is not None and entry.run.silent_s is not None:
            signs.append(entry.run.silent_s)
        elif seen := process_state.Observer(self._runs / entry.job.name).sign_of_life(time.time()):
            signs.append(seen.silent_s)
        return min(signs)

    def _has_report(self, entry: JobState) -> bool:
        return (self._runs / entry.job.name / "report.json").exists()


def run_campaign(run: CampaignRun, show: Callable[[list[JobState]], None]) -> bool:
    """Runs all jobs and calls `show` after each step; returns whether it was asked to stop.

    After Ctrl-C and SIGTERM every job saves before this returns.
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


def end_process(process: "subprocess.Popen[bytes]", grace_s: float) -> None:
    """Sends SIGTERM to a process, and after `grace_s` SIGKILL to all of its group."""
    if grace_s > 0 and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
