"""Hands the steps of chosen sessions to the process that records; never delays an answer.

The event loop only puts a step into a queue. A thread empties it ten times a second into the
standard input of the process. If the queue is full because the process is slow, steps are lost and
counted, and the process cuts the episode there.
"""

import contextlib
import hashlib
import itertools
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec
import numpy as np

from rlcar.errors import reason_of
from serve.api.schema import CheckedRequest, Source
from serve.recording.folder import Options
from serve.recording.messages import REPORTS, Message, Model, Report, Step, pack, with_outcome
from serve.recording.metrics import RecordingMetrics
from serve.settings import ServeSettings

_LOGGER = logging.getLogger(__name__)
_INTERVAL_S = 0.1
_RESTART_S = 10.0  # before a process that ended is started again
_MOST_STEPS_WAITING = 65_536  # over all cars
_STEPS_A_MESSAGE = 256  # so that encoding holds up the event loop for less than a millisecond
# For what waits at the end of the server. Ray kills a replica after 15 s, of which it needs 4 s.
_CLOSE_S = 8.0
QUEUE_FULL, CLIENT_SHARE, NO_PROCESS = "queue full", "share of the client", "no process"


class Driver(NamedTuple):
    """The version whose policy drives a session."""

    version: int
    config: dict[str, object]  # the settings of its training
    observation_size: int
    action_size: int


class Arm(NamedTuple):
    """Which of the two versions of a rollout gave an answer."""

    rollout: str
    is_canary: bool


class Answered(NamedTuple):
    """The answer to a request."""

    version: int
    source: Source
    action: np.ndarray  # [N, A]
    arm: Arm | None = None  # None: no rollout was under way


class _Client:
    """Counts the steps of one client in the queue."""

    def __init__(self) -> None:
        # Each is written by one thread only: steps that were put into the queue and taken out.
        self.put_steps = self.taken_steps = 0


class RecordedSession:
    """A session that was chosen; counts its steps."""

    def __init__(self, number: int, client: _Client):
        self.number, self.client = number, client
        self.sequence = -1
        self.step: int | None = None  # the client's number of the last step


class _Waiting(NamedTuple):
    """A step in the queue."""

    session: RecordedSession
    sequence: int
    request: CheckedRequest
    driver: Driver
    answer: Answered


class Recorder:
    """Records a share of the sessions of one server."""

    def __init__(
        self,
        settings: ServeSettings,
        most_steps_waiting: int = _MOST_STEPS_WAITING,
        close_s: float = _CLOSE_S,
    ):
        """Raises AssertionError unless the settings name a folder."""
        assert settings.record is not None, settings
        self.metrics = RecordingMetrics()
        self._share = settings.record_share
        self._options = Options(
            folder=str(settings.record.absolute()),
            name=settings.record_name,
            alias=settings.alias,
            share=settings.record_share,
            limit_bytes=int(settings.record_limit_mb * 1e6),
            flush_s=settings.record_flush_s,
            expiry_s=settings.session_expiry_s,
        )
        self._numbers = itertools.count()
        self._most_steps_waiting = most_steps_waiting
        self._close_s = close_s
        self._queue: deque[_Waiting] = deque()
        self._clients: WeakValueDictionary[str, _Client] = WeakValueDictionary()
        # Each is written by one thread only: steps that were put into the queue and taken out.
        self._put_steps = self._taken_steps = 0
        self._problem: str | None = None
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rlcar-record", daemon=True)

    def start(self) -> None:
        """Starts the process, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """Sends what waits and lets the process write it; blocks for eight seconds at most."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._close_s)

    def begin(self, client: str, name: str) -> RecordedSession | None:
        """Returns what counts the steps of a client's new session, or None if it is not chosen."""
        if not is_chosen(name, self._share):
            return None
        self.metrics.sessions += 1
        counted = self._clients.setdefault(client, _Client())
        return RecordedSession(next(self._numbers), counted)

    def note(
        self,
        session: RecordedSession,
        request: CheckedRequest,
        driver: Driver,
        answer: Answered,
    ) -> None:
        """Records a request with its answer.

        A client may have as many steps in the queue as there is room left. So one that sends more
        than the process can write fills half of the queue, and the others still find room.
        """
        step = request.step
        is_old = step is not None and session.step is not None and step <= session.step
        if is_old and not request.batch.is_first.all():
            return  # a repeated request, which is no other step
        session.step = step
        session.sequence += 1
        cars = len(request.batch.is_first)
        room = self._most_steps_waiting - (self._put_steps - self._taken_steps)
        client = session.client
        if cars > room:
            self.metrics.lost_steps[QUEUE_FULL] += cars
            return
        if client.put_steps - client.taken_steps + cars > room:
            self.metrics.lost_steps[CLIENT_SHARE] += cars
            return
        self._put_steps += cars
        client.put_steps += cars
        self._queue.append(_Waiting(session, session.sequence, request, driver, answer))

    def _run(self) -> None:
        """Runs the process until the end; starts it again some time after it has ended."""
        while True:
            try:
                self._feed()
            except OSError as error:
                self._note_problem(f"the process that records has ended: {reason_of(error)}")
            except Exception:
                _LOGGER.exception("recording")
                self._note_problem("the thread that records has failed")
            if self._is_stopping.is_set():
                return
            self.metrics.is_working = False
            self._is_stopping.wait(_RESTART_S)
            self.metrics.lost_steps[NO_PROCESS] += sum(
                len(one.request.batch.is_first) for one in self._take(len(self._queue))
            )

    def _feed(self) -> None:
        """Starts the process and sends it what waits; raises OSError once it has ended."""
        process = _spawn(self._options)
        assert process.stdin is not None
        reader = threading.Thread(target=self._read_reports, args=(process,), daemon=True)
        reader.start()
        known: set[int] = set()
        try:
            while True:
                is_last = self._is_stopping.wait(_INTERVAL_S)
                while self._queue:
                    waiting = self._take(_STEPS_A_MESSAGE)
                    process.stdin.write(pack(_messages(waiting, known)))
                process.stdin.flush()
                if is_last:
                    return
                if process.poll() is not None:
                    raise OSError(f"exit code {process.returncode}")
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._close_s)
            reader.join(1.0)

    def _take(self, most: int) -> list[_Waiting]:
        taken = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        for one in taken:
            cars = len(one.request.batch.is_first)
            self._taken_steps += cars
            one.session.client.taken_steps += cars
        return taken

    def _read_reports(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                with contextlib.suppress(msgspec.DecodeError):
                    self._note(REPORTS.decode(line))

    def _note(self, report: Report) -> None:
        self.metrics.add(report)
        self._note_problem(report.problem)
        for note in report.notes:
            _LOGGER.warning("recording: %s", note)

    def _note_problem(self, problem: str | None) -> None:
        """Logs a problem once, and its end."""
        if problem is not None and problem != self._problem:
            _LOGGER.error("sessions are not recorded, and the server goes on: %s", problem)
        elif problem is None and self._problem is not None:
            _LOGGER.warning("sessions are recorded again")
        self._problem = problem


def is_chosen(name: str, share: float) -> bool:
    """Whether a session of this name is recorded; all servers agree, and so do later starts."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"rlcar-record").digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def _messages(waiting: list[_Waiting], known: set[int]) -> list[Message]:
    """Converts steps, and precedes the first one of each version with its model."""
    messages: list[Message] = []
    for one in waiting:
        driver, request = one.driver, one.request
        if driver.version not in known:
            known.add(driver.version)
            messages.append(
                Model(driver.version, driver.config, driver.observation_size, driver.action_size)
            )
        step = Step(
            one.session.number,
            one.sequence,
            request.step,
            driver.version,
            one.answer.version,
            one.answer.source,
            np.ascontiguousarray(request.batch.observation, np.float32).tobytes(),
            np.ascontiguousarray(request.batch.is_first, np.bool_).tobytes(),
            np.ascontiguousarray(one.answer.action, np.float32).tobytes(),
        )
        if one.answer.arm is not None:
            step.rollout, step.is_canary = one.answer.arm
        messages.append(step if request.outcome is None else with_outcome(step, request.outcome))
    return messages


def _spawn(options: Options) -> "subprocess.Popen[bytes]":
    """Starts the process, which a signal to the server's group does not reach."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-m", "serve.recording.process", msgspec.json.encode(options).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | threads | paths,
        start_new_session=True,
    )
