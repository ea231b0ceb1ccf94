"""One job of a campaign: what the scheduler, its process and its run say about it."""

import contextlib
import dataclasses
import time
from pathlib import Path

from rlcar.campaigns import processes
from rlcar.campaigns.config import Job
from rlcar.campaigns.failures import Ending
from rlcar.campaigns.gpus import GpuUse
from rlcar.campaigns.prediction import Prediction, Work
from rlcar.campaigns.processes import JobProcess
from rlcar.campaigns.scheduler import JobState, Scheduler
from rlcar.campaigns.snapshot import FOLDER, JobView
from rlcar.errors import UserError
from rlcar.runs.monitor import RunReader, RunStatus
from rlcar.system import error_file, process_state
from rlcar.system.heartbeat import patience_s
from rlcar.system.lease import WAIT_S

# A process that is started again imports for up to a minute, then waits for a lost host's lease.
_MAY_WAIT_S = WAIT_S + 60.0
# States of a run whose process is about to end, or has ended.
_ENDING = ("dead", "failed", "stopped", "finished", "unknown")


@dataclasses.dataclass
class CampaignJob:
    """One job of the queue with its process and its run."""

    job: Job
    work: Work
    env_steps_total: int
    scheduler: Scheduler
    is_on_cluster: bool
    runs: Path
    frozen_after_s: float
    process: JobProcess | None = None
    reader: RunReader | None = None
    run: RunStatus | None = None  # as it was at the last look
    started_s: float = 0.0  # monotonic time of the last start
    stopping_s: float = 0.0  # monotonic time at which its process was asked to stop
    oom_kills: int = 0  # of the machine at that time
    gpus: list[GpuUse] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the job and of its run."""
        return self.job.name

    @property
    def entry(self) -> JobState:
        """What the scheduler knows about it."""
        return self.scheduler.jobs[self.job.name]

    @property
    def state(self) -> str:
        """One of `scheduler.JOB_STATES`."""
        return self.entry.state

    @property
    def failures(self) -> int:
        """Times that its process has failed."""
        return self.entry.failures

    @property
    def freezes(self) -> int:
        """Times that its process was frozen."""
        return self.entry.freezes

    @property
    def reason(self) -> str:
        """Why it failed last."""
        return self.entry.reason

    @property
    def is_active(self) -> bool:
        """Whether a process of it exists."""
        return self.state in ("running", "stopping")

    @property
    def env_steps(self) -> int:
        """Env steps that the job has completed."""
        if self.state == "done":
            return self.env_steps_total
        return min(self.run.env_steps, self.env_steps_total) if self.run else 0

    @property
    def done(self) -> float:
        """Completed part of its work, in the unit of the work."""
        if self.state == "done":
            return self.work.total
        if self.work.unit == "episodes":
            return min((self.run.episodes if self.run else None) or 0.0, self.work.total)
        return float(self.env_steps)

    @property
    def log(self) -> Path:
        """What its processes print."""
        return self.runs / "logs" / f"{self.name}.log"

    @property
    def error_path(self) -> Path:
        """Where its process writes the error that ends it."""
        return self.runs / FOLDER / "errors" / f"{self.name}.json"

    def ask_to_stop(self) -> None:
        """Asks its process to save and end."""
        self.stopping_s = time.monotonic()
        if self.process is not None:
            self.process.terminate()

    def look(self) -> None:
        """Reads what its run has written."""
        with contextlib.suppress(UserError):  # the run has not begun yet
            self.reader = self.reader or RunReader(self.runs / self.name, self.frozen_after_s)
            self.run = self.reader.status()

    def is_complete(self) -> bool:
        """Whether the run was finished and has its report, at the last look."""
        has_report = (self.runs / self.name / "report.json").exists()
        return has_report and self.run is not None and self.run.state == "finished"

    def is_frozen(self, process: JobProcess, now_s: float) -> bool:
        """Whether its process makes no progress; `now_s` is monotonic time."""
        about = process_state.read(self.runs / self.name)
        is_its_own = process_state.was_here(about) and about["pid"] == process.pid
        if self.run is not None and is_its_own and self.run.state not in _ENDING:
            return self.run.state == "frozen"
        # The folder describes an earlier process, perhaps of another host. The new process still
        # imports, fetches a run from the storage, or waits for the other's lease to expire.
        limit_s = max(patience_s("starting", self.frozen_after_s), _MAY_WAIT_S)
        return self.silent_s(now_s) > limit_s

    def silent_s(self, now_s: float) -> float:
        """Returns the time since the last sign of life; `now_s` is monotonic time."""
        signs = [now_s - self.started_s]  # signs before this start do not count
        if self.run is not None and self.run.silent_s is not None:
            signs.append(self.run.silent_s)
        elif seen := process_state.Observer(self.runs / self.name).sign_of_life(time.time()):
            signs.append(seen.silent_s)
        return min(signs)

    def ending(self, process: JobProcess) -> Ending:
        """Returns what is known about how its process ended."""
        return Ending(
            process.exit_code,
            error_file.read(self.error_path, process.pid),
            processes.last_line(self.log),
            self.is_on_cluster,
            processes.oom_kills() > self.oom_kills,
        )

    def view(self, predicted: Prediction | None) -> JobView:
        """Returns what others are shown of it."""
        return JobView(
            name=self.name,
            state=self.state,
            slot=self.entry.slot,
            done=self.done,
            total=self.work.total,
            unit=self.work.unit,
            per_s=None if predicted is None else predicted.per_s,
            rate_source="" if predicted is None else predicted.source,
            remaining_s=None if predicted is None else predicted.remaining_s,
            failures=self.failures,
            freezes=self.freezes,
            failure=self.entry.failure,
            reason=self.reason,
            stage=self.run.stage if self.run and self.is_active else None,
            silent_s=self.run.silent_s if self.run and self.is_active else None,
            gpus=self.gpus,
        )
