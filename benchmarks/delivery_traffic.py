"""Ten cars that send requests to a real server at fixed times, and report their laps."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
from load import Line, make_lines, post

CARS = 10
PER_S = 100.0
_LINES = 4
_BODIES = 500  # prebuilt observations


class Told(NamedTuple):
    """One answer."""

    car: int
    due_s: float
    received_s: float
    status: int
    source: str
    version: int
    steps: int  # in the session's memory; gives the order in which the server acted


class Lap(NamedTuple):
    """A lap that a version drives."""

    steps: int
    reward: float
    is_success: bool


DrawLap = Callable[[int], Lap]  # the version that drives -> its next lap

_STEPS_PER_S = 30.0
_LATENCY_LIMIT_S = 30.0


class Traffic:
    """The cars of one server; `told` grows while they drive."""

    def __init__(self, url: str, seed: int, draw_lap: DrawLap | None = None):
        """With `draw_lap` each car reports laps that last as long as they would at 30 steps/s."""
        self.told: list[Told] = []
        self.laps: list[tuple[float, int]] = []  # time and version of each lap that was counted
        self.lost = 0  # requests without a readable answer
        self._url, self._draw_lap = url, draw_lap
        self._rng = np.random.default_rng(seed)
        self._idle: list[Line] = []
        self._heard = [0] * CARS
        self._ends_s = [0.0] * CARS
        self._lap: list[Lap | None] = [None] * CARS
        self._observations = self._rng.random((_BODIES, 6)).round(4).tolist()

    async def drive(self, is_over: Callable[[], bool]) -> None:
        """Sends a request every 10 ms until it is over, whether others were answered or not."""
        self._idle = await make_lines(self._url, _LINES)
        running: set[asyncio.Task[None]] = set()
        began_s, number = time.perf_counter(), 0
        while not is_over():
            due_s = began_s + number / PER_S
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            car = number % CARS
            for work in (self._act(car, number, due_s), self._report_if_due(car)):
                task = asyncio.create_task(work)
                running.add(task)
                task.add_done_callback(running.discard)
            number += 1
        await asyncio.gather(*running)
        for line in self._idle:
            line.transport.close()

    def begin_lap(self, car: int, lap: Lap) -> None:
        """Gives a car another lap in place of its present one, which it does not report."""
        self._lap[car] = lap
        self._ends_s[car] = time.perf_counter() + lap.steps / _STEPS_PER_S

    def cars_of(self, version: int) -> list[int]:
        """Returns the cars whose last answer was a version's."""
        return [car for car in range(CARS) if self._heard[car] == version]

    async def _act(self, car: int, number: int, due_s: float) -> None:
        body: dict[str, Any] = {
            "observation": self._observations[number % _BODIES],
            "session": f"car-{car}",
        }
        if self._heard[car]:
            body["model_version"] = self._heard[car]
        status, content = await self._ask("/v1/act", car, body)
        if content is None:
            self.lost += 1
            return
        version = content.get("model_version") or 0
        if version != self._heard[car]:
            self._lap[car] = None  # the lap of another version is not finished as one
        self._heard[car] = version
        told = (status, content.get("source", ""), version, content.get("session_steps") or 0)
        self.told.append(Told(car, due_s, time.perf_counter(), *told))

    async def _report_if_due(self, car: int) -> None:
        if self._draw_lap is None or not self._heard[car]:
            return
        now_s, lap, version = time.perf_counter(), self._lap[car], self._heard[car]
        if lap is not None and now_s < self._ends_s[car]:
            return
        self._lap[car] = following = self._draw_lap(version)
        self._ends_s[car] = now_s + following.steps / _STEPS_PER_S
        if lap is None:
            return
        body = {"session": f"car-{car}", "reward": lap.reward, "success": lap.is_success}
        _, content = await self._ask("/v1/outcome", car, body)
        if content is not None and content.get("status") == "counted":
            self.laps.append((time.perf_counter(), version))

    async def _ask(
        self, path: str, car: int, body: dict[str, Any]
    ) -> tuple[int, dict[str, Any] | None]:
        self._idle = [line for line in self._idle if not line.transport.is_closing()]
        line = self._idle.pop() if self._idle else (await make_lines(self._url, 1))[0]
        request = post(self._url, path, msgspec.json.encode(body), f"x-session-id: car-{car}\r\n")
        try:
            answer = await asyncio.wait_for(line.ask(request), _LATENCY_LIMIT_S)
            head, _, content = answer.partition(b"\r\n\r\n")
            status, tree = int(head.split(b" ", 2)[1]), msgspec.json.decode(content)
        except (OSError, TimeoutError, ValueError):
            line.transport.close()
            return 0, None
        self._idle.append(line)
        return status, tree
