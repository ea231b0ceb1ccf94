"""The trainings and nodes of a cluster, as its dashboard reports them."""

import time
from typing import Any, NamedTuple
from urllib.parse import quote

from ray.job_submission import JobDetails, JobStatus

from cluster.jobs.dashboard import DashboardClient, brief
from cluster.jobs.submit import jobs
from rlcar.errors import UserError
from rlcar.runs.metrics import PlainProgress, read_progress_line
from rlcar.runs.monitor import Card, RunStatus, status_of_progress
from rlcar.system.heartbeat import FROZEN_AFTER_S, SignOfLife, is_frozen

# A training prints a progress line every ten seconds, among other lines.
_LINES = 200  # of a job's log, searched for the newest progress line
_STATES = {
    JobStatus.PENDING: "starting",
    JobStatus.RUNNING: "running",
    JobStatus.SUCCEEDED: "finished",
    JobStatus.FAILED: "failed",
    JobStatus.STOPPED: "stopped",
}


class NodeStatus(NamedTuple):
    """The state and load of one node of the cluster."""

    host: str
    state: str
    cpu_share: float
    memory_share: float
    cards: list[Card]


class ClusterReader:
    """Polls the dashboard, and remembers when each job last printed its progress."""

    def __init__(self, client: DashboardClient, frozen_after_s: float = FROZEN_AFTER_S):
        self._client, self._frozen_after_s = client, frozen_after_s
        self._newest_lines: dict[
            str, tuple[PlainProgress, float]
        ] = {}  # job -> (newest line, when it appeared)

    def statuses(self) -> list[RunStatus]:
        """Returns the training jobs, oldest first; raises UserError without an answer."""
        found = []
        for job in jobs(self._client):
            command = (job.metadata or {}).get("rlcar", "")
            if command.startswith("train"):
                found.append(self._status(job))
        return found

    def nodes(self) -> list[NodeStatus]:
        """Returns the nodes; raises UserError if the dashboard does not list them."""
        try:
            summary = self._client.get_json("/nodes?view=summary")["data"]["summary"]
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self._client.url} does not list its nodes: {brief(error)}"
            ) from error
        return [_node(about) for about in summary]

    def _status(self, job: JobDetails) -> RunStatus:
        job_id, state = job.submission_id or "", _STATES[job.status]
        progress = self._progress(job)
        status = status_of_progress(job_id, state, progress)
        if state != "running" or progress is None:
            return status
        line, since_s = self._newest_lines.get(job_id, (None, 0.0))
        if line != progress:
            since_s = time.monotonic()
            self._newest_lines[job_id] = (progress, since_s)
        line_age_s = time.monotonic() - since_s
        total = SignOfLife(progress.signs.stage, progress.signs.silent_s + line_age_s)
        # In every stage, a process that is alive prints a line every half minute.
        frozen = line_age_s > self._frozen_after_s or is_frozen(total, self._frozen_after_s)
        new_state = "frozen" if frozen else state
        return status._replace(silent_s=total.silent_s, state=new_state, stage=total.stage)

    def _progress(self, job: JobDetails) -> PlainProgress | None:
        file = quote(f"job-driver-{job.submission_id}.log")
        path = f"/api/v0/logs/file?node_id={job.driver_node_id}&filename={file}&lines={_LINES}"
        try:
            text = self._client.get(path).text
        except (OSError, RuntimeError):
            return None  # it has printed nothing yet, or its node has left
        lines = (read_progress_line(line) for line in reversed(text.splitlines()))
        return next((progress for progress in lines if progress), None)


def _node(report: dict[str, Any]) -> NodeStatus:
    memory = report.get("mem") or [0, 0, 0]  # total, available, percent, …
    cards = [
        Card(
            int(card.get("index", 0)),
            str(card.get("name", "")),
            (card.get("utilizationGpu") or 0.0) / 100,
            float(card.get("memoryUsed") or 0.0),
            float(card.get("memoryTotal") or 0.0),
        )
        for card in report.get("gpus") or []
    ]
    return NodeStatus(
        str(report.get("hostname") or report.get("ip")),
        str(report.get("raylet", {}).get("state", "unknown")).lower(),
        float(report.get("cpu") or 0.0) / 100,
        float(memory[2]) / 100,
        cards,
    )
