"""The live session: one car in real time, everybody who watches it, one who may drive it."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from rlcar.config.race import RaceConfig
from rlcar.devices.selection import disable_async_dispatch
from rlcar.errors import UserError
from rlcar.track import TRACK_SETS
from serve.live.car import open_course
from serve.live.dream import RunDreams, open_dreamer
from serve.live.drive import FRAMES_PER_S, Drive
from serve.live.manual_control import ManualControl
from serve.live.policies import LIVE, LoadedPolicy, PolicyCatalog, StatefulPolicy, open_catalog
from serve.live.report import report_state, report_stats, report_track
from serve.live.viewers import Viewer, Viewers, sentence
from serve.live.wire import pack_dream, pack_latent, pack_tick
from serve.policy.registry_calls import CHANGE_TIMEOUT_S, READ_TIMEOUT_S, RegistryCalls

_LATE_S = 0.25  # a loop so far behind drops frames instead of hurrying
_STILL_EVERY = 30  # frames; of a car that stands, an occasional one is enough
_ROWS_TOLD = 400
_LOG = logging.getLogger(__name__)


class LiveSession:
    """Owns the loop; every method but the constructor belongs to its event loop.

    `async with session.running()` starts it. What blocks (the disk, compiling) runs in a thread.
    """

    def __init__(self, catalog: PolicyCatalog, race: RaceConfig, track_set: str = "validation"):
        self.catalog, self.viewers, self.manual_control = catalog, Viewers(), ManualControl()
        self._seeds = TRACK_SETS[track_set]
        self.drive = Drive(open_course(race, self._seeds), self.manual_control)
        self.follows = catalog.follower is not None
        self._dreams = RunDreams(catalog.follower) if catalog.follower else None
        self._started_s, self._count = time.monotonic(), 0
        self._steps: deque[tuple[float, int]] = deque(maxlen=6)  # (when, how many), a second apart
        self._lock, self._registry_calls = asyncio.Lock(), RegistryCalls()
        self.late_frames = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the car and follows the run until the block ends."""
        with contextlib.suppress(UserError):  # a champion that is damaged must not stop the page
            await self._put(await self._registry_calls.run(CHANGE_TIMEOUT_S, self.catalog.first))
        tasks = [asyncio.create_task(one) for one in (self._frames(), self._news())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def greet(self, viewer: Viewer) -> None:
        """Tells a new viewer all that it must know."""
        self.viewers.add(viewer)
        follower = self.catalog.follower
        rows = [] if follower is None else follower.rows[-_ROWS_TOLD:]
        run = None if follower is None else follower.folder.name
        viewer.tell(sentence("hello", id=viewer.id, key=viewer.key, run=run))
        viewer.tell(sentence("track", **report_track(self.drive.car, self._seeds)))
        viewer.tell(sentence("rows", is_anew=True, rows=rows))
        viewer.tell(sentence("stats", **self.stats()))
        self.broadcast_state()
        viewer.show(self._tick())

    def part(self, viewer: Viewer) -> None:
        """Forgets a viewer, and frees the control if it had it."""
        self.viewers.remove(viewer)
        if self.manual_control.leave(viewer.key):
            self.broadcast_state()

    def take_control(self, client: str) -> None:
        """Gives a client the wheel; raises ControlTakenError while somebody else has it."""
        if self.manual_control.take(client, is_connected=self.viewers.find(client) is not None):
            self.broadcast_state()

    def start(self) -> None:
        """Lets the car drive."""
        self.drive.is_running = True
        self.broadcast_state()

    def stop(self) -> None:
        """Pauses it; the episode is kept."""
        self.drive.is_running = False
        self.broadcast_state()

    def reset(self) -> None:
        """Begins the episode again."""
        self.drive.begin()
        self.viewers.show(self._tick())

    def toggle_control(self) -> bool:
        """Hands the wheel from the policy to the driver, or back; says whether it is manual now."""
        self.drive.is_manual = not self.drive.is_manual
        self.broadcast_state()
        return self.drive.is_manual

    def go_to_track(self, seed: int | None) -> int:
        """Begins on a track, or on the next; raises UserError where there is none such."""
        if seed is not None and seed not in self._seeds:
            raise UserError(
                f"there is no track {seed} here: choose {self._seeds[0]} to {self._seeds[-1]}"
            )
        if seed is None:
            self.drive.next_track()
        else:
            self.drive.begin(seed)
        self._tell_track()
        return self.drive.car.track_seed

    async def load(self, file: str) -> str:
        """Puts a version, a save or the run's newest policy at the wheel; returns its label."""
        if file == LIVE and self.catalog.follower is None:
            raise UserError("no run is followed here: load a version, e.g. file=champion")
        async with self._lock:
            load = self.catalog.newest if file == LIVE else lambda: self.catalog.load(file)
            loaded = await self._registry_calls.run(CHANGE_TIMEOUT_S, load)
            self.follows = file == LIVE
            await self._put(loaded)
        self.broadcast_state()
        return "nobody" if loaded is None else loaded.label

    async def list_models(self) -> dict[str, Any]:
        """Describes every version and the saves of the run, newest first, and other files."""
        catalog, run = self.catalog, self._registry_calls.run
        lists = {"models": catalog.entries, "saves": catalog.saves, "files": catalog.files}
        return {name: await run(READ_TIMEOUT_S, read) for name, read in lists.items()}

    async def save(self, description: str) -> int:
        """Publishes the policy at the wheel; returns its new number."""
        wheel = self.drive.policy
        if wheel is None:
            raise UserError("there is no policy yet: wait for the run's first save, or load one")
        number = await self._registry_calls.run(
            CHANGE_TIMEOUT_S, self.catalog.publish, wheel.loaded, description
        )
        self.viewers.tell("versions", newest=number)
        return number

    async def set_ghost(self, file: str | None) -> str | None:
        """Lets another policy drive along, or nobody; the episode begins again for both."""
        load = self._registry_calls.run
        loaded = None if file is None else await load(CHANGE_TIMEOUT_S, self.catalog.load, file)
        self.drive.ghost = None if loaded is None else StatefulPolicy(loaded)
        self.drive.begin()
        self.broadcast_state()
        return None if loaded is None else loaded.label

    def state(self) -> dict[str, Any]:
        """Says who drives what; changes seldom."""
        return {
            **report_state(self.drive, self.manual_control, self.viewers),
            "follows": self.follows,
        }

    def stats(self) -> dict[str, Any]:
        """The figures of `/stats`."""
        return {
            **report_stats(self.drive, self.catalog.follower),
            "steps_per_s": round(self.steps_per_s(), 2),
            "uptime_s": round(self.uptime_s, 1),
            "viewers": len(self.viewers),
        }

    @property
    def uptime_s(self) -> float:
        """Seconds since the session began."""
        return time.monotonic() - self._started_s

    def steps_per_s(self) -> float:
        """Steps of the car over the last seconds."""
        if len(self._steps) < 2:
            return 0.0
        (then_s, before), (now_s, after) = self._steps[0], self._steps[-1]
        return (after - before) / (now_s - then_s)

    def broadcast_state(self) -> None:
        """Tells everybody who drives what."""
        self.viewers.tell("state", **self.state())

    def _tell_track(self) -> None:
        self.viewers.tell("track", **report_track(self.drive.car, self._seeds))
        self.viewers.show(self._tick())

    def _tick(self) -> bytes:
        return pack_tick(self._count, 1000.0 * time.monotonic(), self.drive.tick())

    async def _frames(self) -> None:
        """Advances the car 60 times a second, whatever the clock of the machine does."""
        due_s, seen = time.monotonic(), (-1, -1)
        while True:
            self._count += 1
            try:
                seen = self._frame(seen)
            except Exception:  # one bad frame must not end the session
                _LOG.exception("the live session stopped the car")
                self.stop()
            due_s += 1.0 / FRAMES_PER_S
            wait_s = due_s - time.monotonic()
            if wait_s < -_LATE_S:
                self.late_frames += round(-wait_s * FRAMES_PER_S)
                due_s = time.monotonic()
            await asyncio.sleep(max(0.0, wait_s))

    def _frame(self, seen: tuple[int, int]) -> tuple[int, int]:
        drive, track_seed, steps = self.drive, self.drive.car.track_seed, self.drive.steps
        told = drive.frame()
        if told is not None:
            self.viewers.tell(told.pop("kind"), **told)
        if drive.car.track_seed != track_seed:
            self._tell_track()
        if not len(self.viewers) or not (drive.is_running or self._count % _STILL_EVERY == 0):
            return seen
        self.viewers.show(self._tick())
        now_ms = 1000.0 * time.monotonic()
        if drive.steps != steps and drive.latent is not None and drive.steps % 3 == 0:
            self.viewers.show(pack_latent(self._count, now_ms, drive.latent))
        if drive.dream is not None and (id(drive.dream), 0) != seen:
            self.viewers.show(pack_dream(self._count, now_ms, drive.dream))
            return id(drive.dream), 0
        return seen

    async def _news(self) -> None:
        """Looks once a second for what the run has become."""
        while True:
            try:
                await self._follow()
            except UserError as error:  # a save that was deleted while it was read: the next comes
                _LOG.info("following the run: %s", error)
            except Exception:
                _LOG.exception("following the run")
            if self.manual_control.driver is not None and self.manual_control.is_idle():
                self.manual_control.leave(self.manual_control.driver)
                self.broadcast_state()
            self._steps.append((time.monotonic(), self.drive.steps))
            self.viewers.tell("stats", **self.stats())
            await asyncio.sleep(1.0)

    async def _follow(self) -> None:
        follower = self.catalog.follower
        if follower is None or self._dreams is None:
            return
        is_anew, rows = await asyncio.to_thread(follower.read)
        if is_anew or rows:
            told = follower.rows[-_ROWS_TOLD:] if is_anew else rows
            self.viewers.tell("rows", is_anew=is_anew, rows=told)
        async with self._lock:
            if self.follows:
                now = -1 if self.drive.policy is None else self.drive.policy.loaded.env_steps or -1
                await self._put(await asyncio.to_thread(self.catalog.newest, now))
        model = await asyncio.to_thread(self._dreams.newest)
        if model is not None:
            eye = self.drive.dreamer
            if eye is not None and eye.config == model[0]:
                eye.change(model[1])
            else:
                car = type(self.drive.car)(self.drive.car.course)
                self.drive.dreamer = await asyncio.to_thread(open_dreamer, *model, car)
            self.broadcast_state()

    async def _put(self, loaded: LoadedPolicy | None) -> None:
        """Puts a policy at the wheel, in its own world."""
        if loaded is None:
            return
        if loaded.race != self.drive.car.course.config:
            course = await asyncio.to_thread(open_course, loaded.race, self._seeds)
            self.drive.enter(course)
            self._tell_track()
        self.drive.change(loaded)
        self.broadcast_state()


def open_live(
    registry: str | Path,
    run: Path | None = None,
    race: RaceConfig | None = None,
    *,
    preferred: str = "champion",
) -> LiveSession:
    """Makes a session; `race` is the world until a policy brings its own. Blocks for seconds.

    Without a run, the version with the alias or number `preferred` drives first.
    """
    disable_async_dispatch()
    return LiveSession(open_catalog(registry, run, preferred), race or RaceConfig())
