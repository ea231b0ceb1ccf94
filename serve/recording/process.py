"""The process that writes recorded sessions: `python -m serve.recording.process OPTIONS`.

It reads messages from its standard input until the end, which also comes when the server is killed,
and then writes what is left. Of the server's machine it uses one core, at the lowest priority.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator

import msgspec
import pyarrow as pa

from rlcar.config import parse_config
from rlcar.datasets import Episode, World
from rlcar.errors import UserError
from rlcar.types import Spec
from serve.recording.episodes import SessionEpisodes
from serve.recording.folder import NOT_WRITTEN, Options, RecordedFolder, claimed
from serve.recording.messages import DECODER, HEAD, Message, Model, Report, Step

_TICK_S = 1.0
_RETRY_S = 10.0  # after a folder could not be made
# About 200 MB. Where the running episodes are more, they are cut off and written.
_MOST_STEPS_IN_MEMORY = 1_000_000


class Recording:
    """Joins messages to episodes and writes them; every failure becomes part of a report."""

    def __init__(self, options: Options):
        self._options = options
        self._stack = contextlib.ExitStack()
        self._folder: RecordedFolder | None = None
        self._sessions: dict[int, SessionEpisodes] = {}
        self._worlds: dict[int, tuple[World, Spec]] = {}  # by version
        self._steps_in_memory = 0
        self._lost: Counter[str] = Counter()
        self._notes: list[str] = []
        self._claim_problem: str | None = None
        self._try_s = 0.0

    def claim(self, now_s: float) -> None:
        """Claims a folder for this server, below that of all servers."""
        self._try_s, self._claim_problem = now_s + _RETRY_S, None
        try:
            path = self._stack.enter_context(claimed(self._options))
        except UserError as error:
            self._claim_problem = str(error)
            return
        self._folder = RecordedFolder(path, self._options, self._lost)

    def add(self, messages: list[Message], now_s: float) -> None:
        """Adds messages in their order."""
        for message in messages:
            if isinstance(message, Model):
                self._worlds[message.version] = _world_of(message)
            else:
                self._add_step(message, now_s)

    def tick(self, now_s: float) -> None:
        """Writes what is due, and cuts off the episodes of sessions that have gone."""
        if self._folder is None and now_s >= self._try_s:
            self.claim(now_s)
        silent_s = now_s - self._options.expiry_s
        for number in [one for one, it in self._sessions.items() if it.used_s < silent_s]:
            self._cut(self._sessions.pop(number), now_s)
        self._steps_in_memory = sum(session.steps for session in self._sessions.values())
        if self._folder is not None:
            self._folder.flush_if_due(now_s)

    def finish(self, now_s: float) -> None:
        """Writes everything, as at the end of the server."""
        self._cut_all(now_s)
        if self._folder is not None:
            self._folder.close()
        self._stack.close()

    def report(self) -> Report:
        """Returns what has happened since the last call."""
        report = Report() if self._folder is None else self._folder.report()
        report.problem = report.problem or self._claim_problem
        report.lost_steps, report.notes = dict(self._lost), list(self._notes)
        self._lost.clear()
        self._notes.clear()
        return report

    def _add_step(self, step: Step, now_s: float) -> None:
        cars = len(step.is_first)
        session = self._sessions.get(step.session)
        if session is None:
            session = self._sessions[step.session] = SessionEpisodes(cars)
        elif (
            session.model != step.model and self._worlds[session.model] != self._worlds[step.model]
        ):
            self._cut(session, now_s)
        session.used_s = now_s
        self._steps_in_memory += cars
        for episode in session.add(step, self._lost):
            self._append(episode, session, now_s)
        if self._steps_in_memory > _MOST_STEPS_IN_MEMORY:
            self._notes.append(
                f"the running episodes have {self._steps_in_memory:,} steps: they are cut off"
            )
            self._cut_all(now_s)

    def _cut(self, session: SessionEpisodes, now_s: float) -> None:
        for episode in session.finish(self._lost):
            self._append(episode, session, now_s)

    def _cut_all(self, now_s: float) -> None:
        for session in self._sessions.values():
            self._cut(session, now_s)
        self._sessions.clear()
        self._steps_in_memory = 0

    def _append(self, episode: Episode, session: SessionEpisodes, now_s: float) -> None:
        if self._folder is None:
            self._lost[NOT_WRITTEN] += episode.transitions
            return
        self._folder.append(episode, *self._worlds[session.model], now_s)


def _world_of(model: Model) -> tuple[World, Spec]:
    spec = Spec(model.observation_size, model.action_size, False, None)
    return World.of_config(parse_config(model.config)), spec


def read_messages(source: int, tick_s: float) -> Iterator[list[Message]]:
    """Yields what arrives at a file descriptor, and an empty list where nothing does for a while.

    It ends with the file. What a killed server has not sent whole is left out.
    """
    buffer = bytearray()
    while True:
        readable, _, _ = select.select([source], [], [], tick_s)
        if not readable:
            yield []
            continue
        data = os.read(source, 1 << 20)
        if not data:
            return
        buffer += data
        while len(buffer) >= HEAD.size:
            end = HEAD.size + HEAD.unpack_from(buffer)[0]
            if len(buffer) < end:
                break
            yield DECODER.decode(memoryview(buffer)[HEAD.size : end].tobytes())
            del buffer[:end]


def main() -> None:
    """Records until the standard input ends."""
    # Ctrl-C and a manager of services reach all processes: this one ends after the server.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    os.nice(19)
    pa.set_cpu_count(1)
    recording = Recording(msgspec.json.decode(sys.argv[1], type=Options))
    recording.claim(time.monotonic())
    last, ticked_s = _say(recording, None), time.monotonic()
    for messages in read_messages(sys.stdin.fileno(), _TICK_S):
        now_s = time.monotonic()
        recording.add(messages, now_s)
        if now_s - ticked_s >= _TICK_S:
            recording.tick(now_s)
            last, ticked_s = _say(recording, last), now_s
    recording.finish(time.monotonic())
    _say(recording, last)


def _say(recording: Recording, last: Report | None) -> Report:
    """Prints a report as a line, unless nothing has happened since the last one."""
    report = recording.report()
    # Most fields count what is new, so two equal reports of losses are two losses.
    quiet = None if last is None else Report(bytes=last.bytes, problem=last.problem)
    if report != quiet:
        with contextlib.suppress(OSError):  # the server has been killed
            os.write(sys.stdout.fileno(), msgspec.json.encode(report) + b"\n")
    return report


if __name__ == "__main__":
    main()
