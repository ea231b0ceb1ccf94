"""Simulated cars that a server drives over the network, and that report their laps, until stopped.

    python benchmarks/fleet.py URL --laps FILE [--sessions 16] [--cars 4] [--people 0]

Every session is a client of its own, as a rollout assigns sessions. The cars drive without an end,
report the reward and the success of each episode, and append it to FILE as one JSON line. In
`--people N` cars of each session a person drives: the hand-written driver `full_throttle`, whose
actions are marked as a person's. The race is that of the served version, changed by `--race JSON`:
a fleet may drive where roads or sensors differ from those of the simulation.
"""

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from rlcar.config import parse_config
from rlcar.config.race import RaceConfig
from rlcar.evaluation.drivers import DRIVERS
from rlcar.sim import make_race
from rlcar.sim.rewards import CRASH_REWARD
from rlcar.track import TRACK_SETS, make_pool
from rlcar.types import TimeStep
from serve.client.address import ServerError
from serve.client.client import AsyncDriveClient
from serve.client.laps import Lap

TRACKS = tuple(TRACK_SETS["train"])[:128]
TIMEOUT_MS = 2000.0  # a machine that trains meanwhile answers late, and no car waits here


class Fleet:
    """Cars in one simulated race, a few in each session."""

    def __init__(
        self,
        clients: Sequence[AsyncDriveClient],
        cars: int,
        people: int,
        race: RaceConfig,
        seed: int,
    ):
        self._clients, self._cars = clients, cars
        self._race = make_race(race, make_pool(TRACKS, race.track), np)
        total = len(clients) * cars
        self._state, self.now = self._race.reset(np.arange(total, dtype=np.int32), seed)
        self._is_person = np.arange(total) % cars < people
        person, key = DRIVERS["full_throttle"], jax.random.PRNGKey(0)
        carry = person.initial(total)
        self._person = jax.jit(lambda step: person.act(None, carry, step, key, False)[1])
        self._executed = np.full((total, 2), np.nan, np.float32)
        self._reward = np.zeros(total)

    async def step(self, laps: TextIO) -> None:
        """Asks the server for one action of every car, and drives."""
        parts = [slice(i * self._cars, (i + 1) * self._cars) for i in range(len(self._clients))]
        replies = await asyncio.gather(
            *(self._act(one, part) for one, part in zip(self._clients, parts, strict=True))
        )
        self._reward = np.where(self.now.is_first, 0.0, self._reward + self.now.reward)
        for client, part, reply in zip(self._clients, parts, replies, strict=True):
            await self._report(client, part, reply.model_version, laps)
        action = np.concatenate([reply.action for reply in replies]).astype(np.float32)
        if self._is_person.any():
            theirs = np.asarray(self._person(TimeStep(*self.now)))
            action = np.where(self._is_person[:, None], theirs, action)
        self._executed = np.where(self._is_person[:, None], action, np.float32(np.nan))
        self._state, self.now, _ = self._race.step(self._state, action)

    async def _act(self, client: AsyncDriveClient, part: slice) -> Any:
        now, known = self.now, {}
        if not now.is_first[part].all():
            executed = np.where(now.is_first[part][:, None], np.nan, self._executed[part])
            known = {
                "reward": now.reward[part],
                "terminated": now.is_terminal[part],
                "truncated": now.is_last[part] & ~now.is_terminal[part],
                "executed": executed,
                "executed_by": "human",
            }
        return await client.act(now.observation[part], now.is_first[part], **known)

    async def _report(
        self, client: AsyncDriveClient, part: slice, version: int | None, out: TextIO
    ) -> None:
        """Reports the episodes of one session that have just ended."""
        ended = np.flatnonzero(self.now.is_last[part])
        laps = []
        for car in ended.tolist():
            index = part.start + car
            is_lap = self.now.is_terminal[index] and self.now.reward[index] > CRASH_REWARD / 5
            human = bool(self._is_person[index])
            laps.append(Lap(float(self._reward[index]), bool(is_lap), human=human, car=car))
            line = {"time_s": time.time(), "version": version, "session": client.session}
            line |= {"reward": laps[-1].reward, "success": laps[-1].success, "human": human}
            out.write(json.dumps(line) + "\n")
            out.flush()
        if laps:
            try:
                await client.report_laps(laps)
            except ServerError as error:
                print(f"not reported: {error}", flush=True)


async def drive(arguments: argparse.Namespace) -> None:
    """Drives until SIGTERM."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    names = [f"{arguments.name}-{number}" for number in range(arguments.sessions)]
    clients = [
        AsyncDriveClient(arguments.url, session=name, timeout_ms=TIMEOUT_MS) for name in names
    ]
    model = await clients[0].check()
    race = parse_config(model["config"]).race
    if arguments.race:
        race = RaceConfig.model_validate(race.model_dump() | json.loads(arguments.race))
    fleet = Fleet(clients, arguments.cars, arguments.people, race, arguments.seed)
    with Path(arguments.laps).open("a") as laps:
        while not over.is_set():
            await fleet.step(laps)
    for client in clients:
        await client.close()


def main() -> None:
    """Reads the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--laps", required=True)
    parser.add_argument("--name", default="car")
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--cars", type=int, default=4)
    parser.add_argument("--people", type=int, default=0)
    parser.add_argument("--race", default="")
    parser.add_argument("--seed", type=int, default=0)
    asyncio.run(drive(parser.parse_args()))


if __name__ == "__main__":
    main()
