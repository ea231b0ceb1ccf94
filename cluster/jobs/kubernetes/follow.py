"""Follows a job: waits for its pods, shows its output, and survives lost connections."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cluster.jobs.kubernetes import status
from cluster.jobs.kubernetes.api import Api, ExpiredError
from cluster.jobs.kubernetes.jobs import cluster_of, pods_of
from cluster.jobs.kubernetes.lines import LogCursor, RepeatedOutput, read_line
from cluster.jobs.kubernetes.paths import PODS, RAY_JOBS
from cluster.jobs.kubernetes.refusals import RefusedError, UnreachableError
from cluster.jobs.kubernetes.retries import Patience, pause_s
from rlcar.errors import UserError

Json = dict[str, Any]
# A progress line comes every ten seconds.
_SILENCE_S = 15.0
_WATCH_S = 5
_OPERATOR_S = 30.0  # within which KubeRay gives a new job a status
_PAUSE_S = 1.0
_LAST_READS = 5  # of the log of a job that has ended
# How long an API server that has just started may refuse what it allowed before: until it has read
# all roles and tokens.
_REFUSED_S = 30.0
_RECONNECT = Patience(first_pause_s=0.5, longest_pause_s=5.0)


class Follower:
    """Follows one job until it has ended."""

    def __init__(
        self,
        api: Api,
        name: str,
        show: Callable[[str], None],
        say: Callable[[str], None],
        *,
        most_lost_s: float,
        operator_s: float = _OPERATOR_S,
        silence_s: float = _SILENCE_S,
        refused_s: float = _REFUSED_S,
    ):
        self._api, self._name, self._show, self._say = api, name, show, say
        self._most_lost_s, self._operator_s, self._silence_s = most_lost_s, operator_s, silence_s
        self._refused_s, self._refused_since_s = refused_s, -1.0
        self._was_allowed = False
        self._lost_since_s: float | None = None
        self._failures = 0
        self._said: set[str] = set()
        self._cursors: dict[str, LogCursor] = {}  # of each submitter pod, by its UID
        self._finished: set[str] = set()  # pods whose logs were read to their end
        self._outputs: dict[str, RepeatedOutput] = {}  # of each Ray job
        self._log_error: UserError | None = None  # why the logs were not read to their end

    def run(self) -> Json | None:
        """Returns the job as it ended, or None if it was deleted meanwhile.

        Raises UserError if it cannot be followed any longer.
        """
        began_s = time.monotonic()
        last_reads = 0
        while True:
            with self._connection():
                job = self._get()
                if job is None:
                    return None
                self._check_operator(job, began_s)
                is_over = status.is_over(job)
                # A job that has ended has nothing to add to the logs that are read now.
                has_read = self._read_logs(job, follow=not is_over)
                if is_over:
                    last_reads += 1
                    if self._log_error is None:
                        return job
                    if last_reads >= _LAST_READS:
                        self._say(f"the end of its output may be missing: {self._log_error}")
                        return job
                elif not has_read:
                    self._report(job)
                    self._wait(job)

    def show_once(self) -> None:
        """Shows the output so far, or says what the job waits for."""
        job = self._api.get(RAY_JOBS, self._name)
        if not self._read_logs(job, follow=False):
            self._report(job)
        if self._log_error is not None:
            raise self._log_error

    @contextmanager
    def _connection(self) -> Iterator[None]:
        """Surrounds requests: announces a lost connection once, and its return."""
        try:
            yield
            self._was_allowed, self._refused_since_s = True, -1.0
        except (UnreachableError, RefusedError) as error:
            if isinstance(error, UnreachableError) or error.code >= 500 or error.code == 429:
                self._lose(error)
            elif error.code in (401, 403) and self._was_allowed:
                self._endure(error)
            else:
                raise

    def _lose(self, error: UserError) -> None:
        now_s = time.monotonic()
        if self._lost_since_s is None:
            self._lost_since_s = now_s
            self._say(f"connection lost, the job goes on: {error}; reconnecting")
        lost_s = now_s - self._lost_since_s
        if lost_s > self._most_lost_s or getattr(error, "is_permanent", False):
            raise UserError(
                f"gave up following {self._name} after {lost_s:.0f} s without a connection "
                f"(--reconnect-s {self._most_lost_s:.0f}); the job goes on: {error}"
            ) from error
        time.sleep(pause_s(_RECONNECT, self._failures))
        self._failures += 1

    def _endure(self, error: UserError) -> None:
        now_s = time.monotonic()
        if self._refused_since_s < 0:
            self._refused_since_s = now_s
            self._say(
                f"what was allowed is refused now, trying for {self._refused_s:.0f} s: {error}"
            )
        if now_s - self._refused_since_s > self._refused_s:
            raise error
        time.sleep(min(_PAUSE_S, self._refused_s))

    def _found(self) -> None:
        if self._lost_since_s is not None:
            lost_s = time.monotonic() - self._lost_since_s
            self._say(f"connected again after {lost_s:.0f} s")
        self._lost_since_s, self._failures = None, 0

    def _get(self) -> Json | None:
        job = None
        try:
            job = self._api.get(RAY_JOBS, self._name)
        except RefusedError as error:
            if error.code != 404:
                raise
        self._found()
        return job

    def _check_operator(self, job: Json, began_s: float) -> None:
        if job.get("status") or (job.get("spec") or {}).get("suspend"):
            return
        if time.monotonic() - began_s > self._operator_s:
            raise UserError(
                f"KubeRay has not processed {self._name} after {self._operator_s:.0f} s: its "
                "operator does not run, watches other namespaces, or is older than 1.7; see "
                "rlcar doctor --kubernetes"
            )

    def _read_logs(self, job: Json, *, follow: bool) -> bool:
        """Shows what the submitter pods print; says whether there was one to read."""
        found = self._api.list_all(PODS, labels=status.submitter_labels(self._name))["items"]
        pods = [pod for pod in found if pod["metadata"]["uid"] not in self._finished]
        pods.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
        started = [pod for pod in pods if status.container_has_started(pod)]
        self._log_error = None
        for pod in started:
            self._read_log(pod, str((job.get("status") or {}).get("jobId")), follow=follow)
        return bool(started)

    def _read_log(self, pod: Json, ray_job: str, *, follow: bool) -> None:
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        is_first = uid not in self._cursors
        cursor = self._cursors.setdefault(uid, LogCursor())
        output = self._outputs.setdefault(ray_job, RepeatedOutput())
        if is_first:
            output.start_again()
        cursor.resume()
        container = pod["spec"]["containers"][0]["name"]
        got_line = False
        try:
            lines = self._api.log(
                name, container, follow=follow, since=cursor.since, silence_s=self._silence_s
            )
            for text in lines:
                got_line = True
                self._take(text, cursor, output)
        except UnreachableError as error:
            # Silence or a lost connection: the state of the job tells which it was.
            self._log_error = error
            time.sleep(0.0 if got_line else _PAUSE_S)
            return
        except RefusedError as error:
            if error.code < 500 and error.code not in (400, 404, 429):
                raise
            if error.code == 404:
                self._finished.add(uid)  # the pod was replaced, or its node has left
            else:
                self._log_error = error
                self._say_once(f"the log of pod {name} cannot be read now: {error}")
                time.sleep(_PAUSE_S)
            return
        if status.pod_is_over(pod) or not follow:
            self._finished.add(uid)

    def _take(self, text: str, cursor: LogCursor, output: RepeatedOutput) -> None:
        line = read_line(text)
        if line is None:
            # The kubelet itself writes, for example that it cannot find the container any more.
            return
        if not cursor.is_new(line):
            return
        if cursor.has_gap():
            self._say("some lines were lost: the node keeps only the newest part of a long log")
        is_new = output.is_new(line.text)
        if output.has_lost_track():
            self._say(
                "the output of the new submitter pod does not continue what was shown: lines may "
                "be missing or repeated here"
            )
        if is_new:
            self._show(f"{line.text}\n")

    def _report(self, job: Json) -> None:
        """Says what the job waits for, each thing once."""
        pods = pods_of(self._api, job)
        problems = status.problems_of(pods, cluster_of(self._api, job))
        for text in [status.progress_of(job, pods), *problems]:
            if text:
                self._say_once(text)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _wait(self, job: Json) -> None:
        """Returns when the job changes, and after some seconds."""
        version = job["metadata"]["resourceVersion"]
        try:
            for _ in self._api.watch(RAY_JOBS, version, name=self._name, seconds=_WATCH_S):
                return
        except ExpiredError:
            return  # the next request reads the job anew
