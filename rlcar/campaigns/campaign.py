"""Runs a campaign: a queue of trainings, some at a time, each in a process of its own.

The scheduler decides, this module carries it out, and the journal remembers. A campaign that was
killed continues from its journal: it adopts the processes of jobs that still run.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rlcar.campaigns import commands, history, processes, snapshot
from rlcar.campaigns.config import Campaign, Job
from rlcar.campaigns.eta import Interval, Past, predict_end
from rlcar.campaigns.failures import Ending, Failure, classify
from rlcar.campaigns.gpus import uses_by_group
from rlcar.campaigns.job import CampaignJob
from rlcar.campaigns.prediction import Prediction, Predictor
from rlcar.campaigns.processes import JobProcess
from rlcar.campaigns.report import write_report
from rlcar.campaigns.scheduler import Event, Scheduler, Start
from rlcar.campaigns.snapshot import FOLDER, Snapshot
from rlcar.errors import UserError
from rlcar.system import error_file, process_state
from rlcar.system.interrupt import StopRequest
from rlcar.system.lease import HeldError, hold
from rlcar.system.when import EverySeconds

_TICK_S = 0.2
_LOOK_EVERY_S = 2.0
_GPUS_EVERY_S = 10.0
_KILL_AFTER_S = 5.0  # between SIGTERM and SIGKILL for a frozen process
_JOURNAL, _ERRORS, _LOGS = "journal.jsonl", "errors", "logs"


class CampaignRun:
    """Holds the queue; `step` starts, observes and restarts jobs, and never waits.

    Only the process that holds the campaign's folder may use it; see `holding`.
    """

    def __init__(self, campaign: Campaign, runs: Path, file: str = "", slots: int | None = None):
        """Continues the campaign of the folder's journal, and adopts processes that still run.

        `file` is for messages; `slots` replaces the number of the file and of the journal. Jobs
        whose run in `runs` is complete count as done. Raises UserError for a damaged journal.
        """
        self._campaign, self._runs, self._file = campaign, runs, file
        self.folder = runs / FOLDER
        for folder in (runs / _LOGS, self.folder / _ERRORS):
            folder.mkdir(parents=True, exist_ok=True)
        self._journal = history.open_journal(self.folder / _JOURNAL)
        names = [job.name for job in campaign.jobs]
        self.scheduler = Scheduler(names, campaign.slots, campaign.limits(), campaign.probe_s)
        self.jobs = [self._made(job) for job in campaign.jobs]
        self._by_name = {one.name: one for one in self.jobs}
        self._predictor = Predictor({one.name: one.work for one in self.jobs})
        self._generator = np.random.default_rng(0)
        self._looked_s = 0.0
        self._acted_at_line = -1  # of the journal
        self._gpus_are_due = EverySeconds(_GPUS_EVERY_S)
        self._has_gpus = True  # until nvidia-smi has reported nothing
        self._state = "running"
        self._report_is_due = EverySeconds(campaign.report_every_s)
        self.last_eta: Interval | None = None
        self._replay()
        self._note("began", slots=campaign.slots)
        if slots is not None and slots != self.scheduler.slots:
            self._note("slots", slots=slots)
        self._resolve()

    @property
    def slots(self) -> int:
        """Number of jobs that may run at once."""
        return self.scheduler.slots

    @property
    def is_paused(self) -> bool:
        """Whether a user has paused the campaign."""
        return self.scheduler.is_paused

    def step(self) -> None:
        """Carries out commands, notices jobs that ended or froze, and starts and stops others."""
        now_s = time.monotonic()
        self._obey()
        should_look = now_s - self._looked_s >= _LOOK_EVERY_S
        self._looked_s = now_s if should_look else self._looked_s
        for one in self.jobs:
            if one.process is not None:
                self._watch(one, one.process, now_s, should_look)
        # Predictions for thousands of jobs take a while, and change only at a look or an event.
        if should_look or len(self._journal.lines) != self._acted_at_line:
            self._act()
            self._acted_at_line = len(self._journal.lines)
        if should_look:
            self._look_at_gpus()
            self._write_status()

    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.scheduler.is_over()

    def stop(self) -> None:
        """Lets all running jobs save at the same time, and waits for them."""
        active = [one for one in self.jobs if one.process is not None]
        for one in active:
            assert one.process is not None
            one.process.terminate()
        end_s = time.monotonic() + self._campaign.stop_within_s
        for one in active:
            assert one.process is not None
            one.process.wait(max(0.0, end_s - time.monotonic()))
            self._has_stopped(one, one.process)
        is_over = self.is_over()
        self._state = "over" if is_over else "stopped"
        if is_over:
            self._note("over")
        self._write_status(is_last=True)

    def snapshot(self) -> Snapshot:
        """Returns what is known at this moment."""
        predicted = self.predictions()
        now_unix_s = time.time()
        left_s = sum(one.remaining_s for one in predicted.values())
        spent_s = self.scheduler.occupied_s(now_unix_s)
        is_paused = self.scheduler.is_paused and self._state == "running"
        return Snapshot(
            self._file,
            "paused" if is_paused else self._state,
            now_unix_s,
            self.scheduler.began_unix_s or now_unix_s,
            self.slots,
            spent_s / (spent_s + left_s) if spent_s + left_s > 0 else 1.0,
            None if is_paused or not predicted else self.eta(predicted),
            [one.view(predicted.get(one.name)) for one in self.jobs],
            list(self.scheduler.spans),
        )

    def predictions(self) -> dict[str, Prediction]:
        """Returns a prediction for every job that is neither done nor failed."""
        return self._predictor.predict(
            {one.name: one.done for one in self.jobs if one.state not in ("done", "failed")}
        )

    def eta(self, predicted: dict[str, Prediction] | None = None) -> Interval:
        """Returns when the campaign will end, in seconds from now."""
        predicted = self.predictions() if predicted is None else predicted
        past = Past(
            sum(one.failures for one in self.jobs),
            self.scheduler.occupied_s(time.time()),
            self._campaign.backoff_s + self._predictor.start_s(),
        )
        running = [name for name in predicted if self._by_name[name].is_active]
        waiting = [name for name in predicted if not self._by_name[name].is_active]
        return predict_end(running, waiting, predicted, self.slots, past, self._generator)

    def _made(self, job: Job) -> CampaignJob:
        config = job.resolved()
        is_on_cluster = job.address is not None and not job.is_local
        total = config.training.env_steps
        return CampaignJob(
            *(job, job.work(config), total, self.scheduler, is_on_cluster),
            self._runs,
            self._campaign.frozen_after_s,
        )

    def _replay(self) -> None:
        """Repeats the journal, and ends processes of jobs that the file has no longer."""
        for identity in history.replay(self._journal, self.scheduler, self._predictor):
            if process := JobProcess.adopt(identity):
                process.terminate()

    def _resolve(self) -> None:
        """Finds out what has become of the jobs since the journal's last entry."""
        for one in self.jobs:
            one.look()
            identity = one.entry.process
            if one.is_active and identity is not None:
                one.process = JobProcess.adopt(identity)
                one.started_s = time.monotonic()
                if one.process is None:
                    self._ended_unseen(one, int(identity["pid"]))
                elif one.state == "stopping":
                    one.ask_to_stop()  # perhaps the earlier campaign did not get that far
                else:
                    self._predictor.meters[one.name].begin(time.monotonic(), one.done)
            elif one.is_complete() and one.state != "done":
                self._note("done", one)
            elif not one.is_complete() and one.state == "done":
                self._note("stopped", one)  # the folder was deleted, or the job became longer

    def _ended_unseen(self, one: CampaignJob, pid: int) -> None:
        """Judges a process that ended while no campaign ran."""
        error = error_file.read(one.error_path, pid)
        if one.is_complete():
            self._note("done", one)
        elif error:
            failure = classify(Ending(None, error, is_on_cluster=one.is_on_cluster))
            self._note("failed", one, failure=failure)
        else:  # it was stopped or killed with the campaign, or the machine was restarted
            self._note("stopped", one)

    def _watch(
        self, one: CampaignJob, process: JobProcess, now_s: float, should_look: bool
    ) -> None:
        if process.is_over():
            self._ended(one, process)
            return
        if not should_look:
            return
        one.look()
        if one.state == "stopping":
            if now_s - one.stopping_s > self._campaign.stop_within_s:
                self._has_stopped(one, process)
            return
        self._predictor.meters[one.name].see(now_s, one.done)
        if one.is_frozen(process, now_s):
            reason = f"frozen for {one.silent_s(now_s):.0f} s"
            process.terminate()
            process.wait(_KILL_AFTER_S)
            process.kill()
            self._fail(one, Failure("frozen", reason))

    def _ended(self, one: CampaignJob, process: JobProcess) -> None:
        one.look()
        code = process.exit_code
        if code == 0 or (code is None and one.is_complete()):
            self._release(one, is_done=True)
            self._note("done", one)
        elif one.state == "stopping":
            self._has_stopped(one, process)
        else:
            self._fail(one, classify(one.ending(process)))

    def _fail(self, one: CampaignJob, failure: Failure) -> None:
        if one.process is not None:
            one.process.kill()  # what it has started may outlive it
        self._release(one)
        self._note("failed", one, failure=failure)

    def _has_stopped(self, one: CampaignJob, process: JobProcess) -> None:
        process.kill()
        is_done = process.exit_code == 0
        one.look()
        self._release(one)
        self._note("done" if is_done or one.is_complete() else "stopped", one)

    def _release(self, one: CampaignJob, *, is_done: bool = False) -> None:
        """Notes what was measured while a process ran, and forgets the process."""
        one.process, one.gpus = None, []
        meter = self._predictor.meters[one.name]
        meter.end(time.monotonic(), is_done=is_done)
        if figures := meter.figures():
            self._note("measured", one, figures=figures)

    def _act(self) -> None:
        now_unix_s = time.time()
        for action in self.scheduler.decide(now_unix_s, self.predictions()):
            one = self._by_name[action.job]
            if isinstance(action, Start):
                self._start(one, action.slot)
            elif one.process is not None:
                self._note("stopping", one, reason=action.why)
                one.ask_to_stop()

    def _start(self, one: CampaignJob, slot: int) -> None:
        command = [sys.executable, "-m", "rlcar.cli", "train", *one.job.options()]
        command += ["--runs", str(self._runs), "--name", one.name, "--resume", "auto"]
        error_path = one.error_path
        error_path.unlink(missing_ok=True)
        environment = {error_file.VARIABLE: str(error_path.resolve())}
        environment |= processes.environment_of(slot, self.slots, self._campaign.devices)
        one.process = JobProcess.start(
            command,
            one.log,
            environment,
            lambda identity: self._note("started", one, slot=slot, process=identity),
        )
        one.started_s, one.oom_kills = time.monotonic(), processes.oom_kills()
        self._predictor.meters[one.name].begin(one.started_s, one.done)

    def _obey(self) -> None:
        """Carries out what users have asked for."""
        for given in commands.waiting(self.folder):
            if given.name not in self.scheduler.commands:
                if given.verb == "slots":
                    self._note("slots", slots=given.slots, command=given.name)
                elif given.verb == "retry":
                    job = self._by_name.get(given.job)
                    self._note("retried", job, command=given.name)
                else:
                    kind = "paused" if given.verb == "pause" else "resumed"
                    self._note(kind, command=given.name)
            commands.drop(self.folder, given.name)

    def _note(
        self,
        kind: Any,
        one: CampaignJob | None = None,
        *,
        failure: Failure | None = None,
        **fields: Any,
    ) -> None:
        """Writes an event into the journal, then changes the state."""
        if failure is not None:
            fields |= {"failure": failure.kind, "reason": failure.reason}
        name = "" if one is None else one.name
        event = Event(kind, round(time.time(), 3), name, **fields)
        self._journal.append(event.tree())
        self.scheduler.apply(event)

    def _look_at_gpus(self) -> None:
        active = [one for one in self.jobs if one.process is not None]
        if not self._has_gpus or not active or not self._gpus_are_due():
            return
        uses = uses_by_group()
        if uses is None:
            self._has_gpus = False
            return
        for one in active:
            assert one.process is not None
            one.gpus = uses.get(one.process.pid, [])

    def _write_status(self, *, is_last: bool = False) -> None:
        now = self.snapshot()
        self.last_eta = now.eta
        with contextlib.suppress(OSError, UserError):  # a full disk; the next one may fit again
            snapshot.write(self.folder, now)
            if is_last or self._report_is_due():
                write_report(self.folder, now)


@contextlib.contextmanager
def holding(runs: Path) -> Iterator[None]:
    """Holds the campaign's folder for this process; raises UserError if another campaign has it."""
    from rlcar.errors import command

    try:
        with hold(runs / FOLDER) as lease:
            lease.begin()
            yield
    except HeldError as error:
        other = process_state.read(runs / FOLDER)
        raise UserError(
            f"a campaign runs in {runs} already (process {other.get('pid')} on "
            f"{other.get('host')}): look at it with "
            f"{command('campaign', 'status', '--runs', runs)}, or name another folder with --runs"
        ) from error


def run_campaign(run: CampaignRun, show: Callable[[list[CampaignJob]], None]) -> bool:
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
