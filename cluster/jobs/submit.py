"""Jobs through Ray's Jobs API: submit a command of ours, follow what it says, stop it."""

import asyncio
import contextlib
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import ClientError
from ray.job_submission import JobDetails, JobStatus, JobType

from cluster.jobs.dashboard import Dashboard, brief
from cluster.jobs.package import Package, pack
from rlcar.errors import UserError
from rlcar.settings.explain import nearest

# A training told to stop saves first, which may take it 20 s; Ray's own patience is 3 s.
STOP_WAIT_S = 30
# Where a run or a sweep goes that names no folder: the job's own folder is deleted with it.
DEFAULT_RUNS = "~/rlcar-runs"
_KEPT = {
    "train": ("--runs", DEFAULT_RUNS),
    "chaos": ("--runs", DEFAULT_RUNS),
    "tune": ("--sweeps", "~/rlcar-sweeps"),
}
_FOLDERS = {"train": ("--resume",), "chaos": ("--run", "--out")}  # further ones
_AGENT_S = 45.0  # for a head that has just been started
_NO_SUCH_COMMAND = 127  # says the shell
_SILENCE_S = 20.0  # after which we ask whether the job, or the connection, is still there


class Submission(NamedTuple):
    """A job that Ray has taken."""

    job_id: str
    entrypoint: str
    package: Package


def entrypoint_of(arguments: Sequence[str], python: str = "python") -> str:
    """The shell command of a job: our program, on the cluster that it finds itself in.

    Raises UserError for folders that would be deleted with the job.
    """
    verb, words = arguments[0], list(arguments)
    option, default = _KEPT.get(verb, ("", ""))
    for name in (option, *_FOLDERS.get(verb, ())) if option else ():
        value = _value(words, name)
        if value in (None, "auto") or "://" in value or Path(value).is_absolute():
            continue
        raise UserError(
            f"{name} {value} is relative, and the job's folder is deleted with it: name an "
            "absolute folder that every node of the cluster sees"
        )
    if option and "--local" not in words:
        if _value(words, "--address") is not None:
            raise UserError(
                "--address of the command itself: leave it out, a job works on the cluster that "
                "it was submitted to"
            )
        words += ["--address", "auto"]
    command = [shlex.quote(python), "-m", "rlcar", *map(shlex.quote, words)]
    if default_folder(arguments):
        command += [option, default]  # the tilde is the cluster's to expand
    return " ".join(command)


def default_folder(arguments: Sequence[str]) -> str:
    """Where a command keeps what it makes, when it does not say so itself; else empty."""
    option, default = _KEPT.get(arguments[0], ("", ""))
    return default if option and _value(arguments, option) is None else ""


def submit(
    client: Dashboard, arguments: Sequence[str], entrypoint: str, folder: Path, cpus: float = 0.0
) -> Submission:
    """Packs the program, uploads it and starts the job; raises UserError if Ray refuses it."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    job_id = f"rlcar-{arguments[0]}-{stamp}-{secrets.token_hex(2)}"
    with tempfile.TemporaryDirectory(prefix="rlcar-submit-") as temporary:
        package = pack(folder, arguments, Path(temporary) / "rlcar.zip")
        job = {
            "entrypoint": entrypoint,
            "submission_id": job_id,
            "runtime_env": {
                "working_dir": str(package.path),
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
            },
            "metadata": {"rlcar": shlex.join(arguments)},
            "entrypoint_num_cpus": cpus or None,
        }
        _hand_over(client, job)
    return Submission(job_id, entrypoint, package)


def _hand_over(client: Dashboard, job: dict[str, Any]) -> None:
    """Tries again while the head is only starting: its dashboard is there before its agent is."""
    end_s = time.monotonic() + _AGENT_S
    while True:
        try:
            client.submit_job(**job)
            return
        except (OSError, RuntimeError) as error:
            said = brief(error)
            if "No available agent" in said:
                if time.monotonic() < end_s:
                    time.sleep(1.0)
                    continue
                said = (
                    "the agent of its head node does not answer, often because another program "
                    "has its port; dashboard_agent.log there says which"
                )
            raise UserError(f"the cluster at {client.url} did not take the job: {said}") from error


def follow(client: Dashboard, job_id: str, show: Callable[[str], None]) -> JobDetails:
    """Hands on what a job says, from its beginning, until it has ended; survives lost connections.

    Ctrl-C interrupts it and leaves the job alone.
    """
    return asyncio.run(_Follower(client, job_id, show).run())


class _Follower:
    def __init__(self, client: Dashboard, job_id: str, show: Callable[[str], None]):
        self._client, self._job_id, self._show = client, job_id, show
        self._shown = 0  # characters

    async def run(self) -> JobDetails:
        was_lost = False
        while True:
            # Silent, or cut off: the job's state tells which.
            with contextlib.suppress(TimeoutError, RuntimeError, OSError, ClientError):
                await self._tail()
            try:
                job = self._client.get_job_info(self._job_id)
                if job.status.is_terminal():
                    self._catch_up()
                    return job
                was_lost = False
            except OSError as error:
                if not was_lost:
                    self._show(f"connection lost ({brief(error)}); the job runs on, trying again\n")
                was_lost = True
            except RuntimeError:
                find_job(self._client, self._job_id)  # says it better
            await asyncio.sleep(1.0)

    async def _tail(self) -> None:
        """Shows what comes, which begins with all that was; raises TimeoutError after silence."""
        skip, stream = self._shown, self._client.tail_job_logs(self._job_id)
        try:
            while True:
                text = await asyncio.wait_for(anext(stream), _SILENCE_S)
                fresh, skip = text[skip:], max(0, skip - len(text))
                self._shown += len(fresh)
                if fresh:
                    self._show(fresh)
        except StopAsyncIteration:
            return
        finally:
            await stream.aclose()

    def _catch_up(self) -> None:
        try:
            rest = self._client.get_job_logs(self._job_id)[self._shown :]
        except (OSError, RuntimeError):
            return  # its node has left with the log
        if rest:
            self._show(rest)


def jobs(client: Dashboard) -> list[JobDetails]:
    """The submitted jobs, oldest first; raises UserError when the cluster does not answer."""
    found = [job for job in _asked(client, client.list_jobs) if job.type is JobType.SUBMISSION]
    return sorted(found, key=lambda job: job.start_time or 0)


def find_job(client: Dashboard, job_id: str) -> JobDetails:
    """One job; raises UserError, naming the nearest, for an id that the cluster does not know."""
    try:
        return client.get_job_info(job_id)
    except OSError as error:
        raise _silent(client, error) from error
    except RuntimeError as error:
        if "404" not in str(error):
            raise UserError(f"the cluster at {client.url}: {brief(error)}") from error
    known = [job.submission_id or "" for job in jobs(client)]
    hint = nearest(job_id, known) if known else "; it has none"
    raise UserError(f"the cluster at {client.url} knows no job {job_id!r}{hint}")


def logs(client: Dashboard, job_id: str) -> str:
    """All that a job has said so far."""
    find_job(client, job_id)
    return str(_asked(client, lambda: client.get_job_logs(job_id)))


def stop(client: Dashboard, job_id: str) -> JobDetails:
    """Asks a job to end and waits until it has; a training saves first."""
    job = find_job(client, job_id)
    if job.status.is_terminal():
        return job
    _asked(client, lambda: client.stop_job(job_id))
    end_s = time.monotonic() + STOP_WAIT_S + 15
    while not job.status.is_terminal():
        if time.monotonic() > end_s:
            raise UserError(
                f"{job_id} was asked to stop and still runs: look at it with rlcar jobs logs"
            )
        time.sleep(0.5)
        job = find_job(client, job_id)
    return job


def exit_code(job: JobDetails) -> int:
    """What a shell should hear of a job that has ended."""
    if job.status is JobStatus.SUCCEEDED:
        return 0
    return 130 if job.status is JobStatus.STOPPED else (job.driver_exit_code or 1)


def reason(job: JobDetails) -> str:
    """Why a job failed, in a line; empty when its own log has said so."""
    if job.status is not JobStatus.FAILED:
        return ""
    if job.driver_exit_code == _NO_SUCH_COMMAND:
        return "its node has no such interpreter on its path: name one with --python"
    if job.driver_exit_code:
        return ""
    lines = [line.strip() for line in (job.message or "").splitlines() if line.strip()]
    return lines[-1] if lines else "for a reason that Ray does not tell"


def _asked(client: Dashboard, question: Callable[[], Any]) -> Any:
    try:
        return question()
    except (OSError, RuntimeError) as error:
        raise _silent(client, error) from error


def _silent(client: Dashboard, error: Exception) -> UserError:
    return UserError(f"the cluster at {client.url} does not answer: {brief(error)}")


def _value(words: Sequence[str], option: str) -> str | None:
    """The value that an option is given, as `--option value` or `--option=value`."""
    for index, word in enumerate(words):
        if word == option:
            return words[index + 1] if index + 1 < len(words) else ""
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None
