"""Jobs through Ray's Jobs API: submit a command, follow its output, stop it."""

import asyncio
import contextlib
import secrets
import shlex
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from aiohttp import ClientError
from ray.job_submission import JobDetails, JobStatus, JobType

from cluster.jobs.dashboard import DashboardClient, brief
from cluster.jobs.package import Package, pack
from rlcar.errors import UserError
from rlcar.settings.explain import nearest

# A training that is told to stop saves first, which may take 20 s; Ray's own default is 3 s.
STOP_WAIT_S = 30
# Where a job writes a run by default: Ray deletes the job's working directory at its end.
DEFAULT_RUNS = "~/rlcar-runs"
# command -> the option for its output folder, and that folder by default
_OUTPUT_OPTIONS = {
    "train": ("--runs", DEFAULT_RUNS),
    "chaos": ("--runs", DEFAULT_RUNS),
    "tune": ("--sweeps", "~/rlcar-sweeps"),
}
# command -> its other options that name a folder
_OTHER_FOLDER_OPTIONS = {"train": ("--resume",), "chaos": ("--run", "--out")}
_AGENT_S = 45.0  # how long the job agent of a new head node may take to start
_COMMAND_NOT_FOUND = 127  # exit status of a shell
_SILENCE_S = 20.0  # without output: check the job and the connection
_STOP_MARGIN_S = 15.0  # how much longer than STOP_WAIT_S a stopping job may take


T = TypeVar("T")


class Submission(NamedTuple):
    """A job that Ray has accepted."""

    job_id: str
    entrypoint: str
    package: Package


def entrypoint_of(arguments: Sequence[str], python: str = "python") -> str:
    """Returns the shell command of a job, which uses the cluster that it runs on.

    Raises UserError for folders that would be deleted with the job.
    """
    verb, words = arguments[0], list(arguments)
    option, default = _OUTPUT_OPTIONS.get(verb, ("", ""))
    for name in (option, *_OTHER_FOLDER_OPTIONS.get(verb, ())) if option else ():
        value = _value(words, name)
        if value in (None, "auto") or "://" in value or Path(value).is_absolute():
            continue
        raise UserError(
            f"{name} {value} is relative, and Ray deletes the job's working directory at its end: "
            "name an absolute folder that every node of the cluster can access"
        )
    if option and "--local" not in words:
        if _value(words, "--address") is not None:
            raise UserError(
                "the submitted command has an option --address: leave it out, as a job uses the "
                "cluster that it was submitted to"
            )
        words += ["--address", "auto"]
    command = [shlex.quote(python), "-m", "rlcar", *map(shlex.quote, words)]
    if default_folder(arguments):
        command += [option, default]  # the tilde is expanded on the cluster
    return " ".join(command)


def default_folder(arguments: Sequence[str]) -> str:
    """Returns the folder for the output of a command that names none; else an empty string."""
    option, default = _OUTPUT_OPTIONS.get(arguments[0], ("", ""))
    return default if option and _value(arguments, option) is None else ""


def submit(
    client: DashboardClient,
    arguments: Sequence[str],
    entrypoint: str,
    folder: Path,
    cpus: float = 0.0,
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
        _submit_job(client, job)
    return Submission(job_id, entrypoint, package)


def _submit_job(client: DashboardClient, job: dict[str, Any]) -> None:
    """Retries while the head node is starting: its dashboard answers before its job agent does."""
    end_s = time.monotonic() + _AGENT_S
    while True:
        try:
            client.submit_job(**job)
            return
        except (OSError, RuntimeError) as error:
            reason = brief(error)
            if "No available agent" in reason:
                if time.monotonic() < end_s:
                    time.sleep(1.0)
                    continue
                reason = (
                    "the job agent of its head node does not answer, often because another "
                    "program uses its port; see dashboard_agent.log on that node"
                )
            raise UserError(
                f"the cluster at {client.url} did not accept the job: {reason}"
            ) from error


def follow(client: DashboardClient, job_id: str, show: Callable[[str], None]) -> JobDetails:
    """Passes the output of a job to `show` from its beginning until the job has ended.

    Continues after a lost connection. Ctrl-C ends this function, and the job runs on.
    """
    return asyncio.run(_Follower(client, job_id, show).run())


class _Follower:
    """Follows the output of one job."""

    def __init__(self, client: DashboardClient, job_id: str, show: Callable[[str], None]):
        self._client, self._job_id, self._show = client, job_id, show
        self._shown = 0  # characters

    async def run(self) -> JobDetails:
        was_lost = False
        while True:
            # After silence or a lost connection, the state of the job tells which it was.
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
                    self._show(f"connection lost ({brief(error)}); the job runs on, reconnecting\n")
                was_lost = True
            except RuntimeError:
                find_job(self._client, self._job_id)  # raises a clearer error
            await asyncio.sleep(1.0)

    async def _tail(self) -> None:
        """Shows the output, which Ray sends again from its beginning.

        Raises TimeoutError after silence.
        """
        skip = self._shown
        stream = cast(AsyncGenerator[str, None], self._client.tail_job_logs(self._job_id))
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
            return  # the node with the log has left
        if rest:
            self._show(rest)


def jobs(client: DashboardClient) -> list[JobDetails]:
    """Returns the submitted jobs, oldest first; raises UserError if the cluster does not answer."""
    found = [job for job in _ask(client, client.list_jobs) if job.type is JobType.SUBMISSION]
    return sorted(found, key=lambda job: job.start_time or 0)


def find_job(client: DashboardClient, job_id: str) -> JobDetails:
    """Returns one job; raises UserError, with the most similar id, for an unknown id."""
    try:
        return client.get_job_info(job_id)
    except OSError as error:
        raise _no_answer(client, error) from error
    except RuntimeError as error:
        if "404" not in str(error):
            raise UserError(f"the cluster at {client.url}: {brief(error)}") from error
    known = [job.submission_id or "" for job in jobs(client)]
    hint = nearest(job_id, known) if known else "; it has no jobs"
    raise UserError(f"the cluster at {client.url} has no job {job_id!r}{hint}")


def logs(client: DashboardClient, job_id: str) -> str:
    """Returns the output of a job so far."""
    find_job(client, job_id)
    return _ask(client, lambda: client.get_job_logs(job_id))


def stop(client: DashboardClient, job_id: str) -> JobDetails:
    """Asks a job to stop and waits until it has ended; a training saves first."""
    job = find_job(client, job_id)
    if job.status.is_terminal():
        return job
    _ask(client, lambda: client.stop_job(job_id))
    end_s = time.monotonic() + STOP_WAIT_S + _STOP_MARGIN_S
    while not job.status.is_terminal():
        if time.monotonic() > end_s:
            raise UserError(
                f"{job_id} was asked to stop but still runs: see its output with rlcar jobs logs"
            )
        time.sleep(0.5)
        job = find_job(client, job_id)
    return job


def exit_code(job: JobDetails) -> int:
    """Returns the exit status for a job that has ended, as for a local command."""
    if job.status is JobStatus.SUCCEEDED:
        return 0
    return 130 if job.status is JobStatus.STOPPED else (job.driver_exit_code or 1)


def reason(job: JobDetails) -> str:
    """Returns in one line why a job failed; empty if its own output explains it."""
    if job.status is not JobStatus.FAILED:
        return ""
    if job.driver_exit_code == _COMMAND_NOT_FOUND:
        return "its node has no such Python interpreter on its PATH: name one with --python"
    if job.driver_exit_code:
        return ""
    lines = [line.strip() for line in (job.message or "").splitlines() if line.strip()]
    return lines[-1] if lines else "for a reason that Ray does not report"


def _ask(client: DashboardClient, request: Callable[[], T]) -> T:
    try:
        return request()
    except (OSError, RuntimeError) as error:
        raise _no_answer(client, error) from error


def _no_answer(client: DashboardClient, error: Exception) -> UserError:
    return UserError(f"the cluster at {client.url} does not answer: {brief(error)}")


def _value(words: Sequence[str], option: str) -> str | None:
    """Returns the value given as `--option value` or `--option=value`; None without one."""
    for index, word in enumerate(words):
        if word == option:
            return words[index + 1] if index + 1 < len(words) else ""
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None
