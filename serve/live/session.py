"""The live session: one car in real time, its viewers, and the one client that may drive it."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np

from rlcar.config.race import RaceConfig
from rlcar.devices.selection import disable_async_dispatch
from rlcar.errors import UserError
from rlcar.track import TRACK_SETS
from serve.live.car import Car, open_course
from serve.live.dream import RunDreams, open_dreamer
from serve.live.drive import FRAMES_PER_S, Drive
from serve.live.loaded_policy import LoadedPolicy, StatefulPolicy
from serve.live.manual_control import ManualControl
from serve.live.policy_catalog import LIVE, PolicyCatalog, open_catalog
from serve.live.report import report_state, report_stats, report_track
from serve.live.viewers import Viewer, Viewers, make_message
from serve.live.wire import pack_dream, pack_latent, pack_tick
from serve.policy.registry_calls import CHANGE_TIMEOUT_S, READ_TIMEOUT_S, RegistryCalls

NO_POLICY = "there is no policy yet: wait for the run's first save, or load one"
_MAX_LATE_S = 0.25  # a loop that is later drops frames instead of catching up
_STOPPED_EVERY_FRAMES = 30  # while the car stands, one frame in so many is sent
_LATENT_EVERY_STEPS = 3
_MAX_ROWS_SENT = 400  # of the run's metrics, to a new viewer
_LOGGER = logging.getLogger(__name__)


class LiveSession:
    """Runs the car; call every method but the constructor from its event loop.

    `async with session.running()` starts it. Work that blocks (the disk, compilation) runs in a
    thread.
    """

    def __init__(self, catalog: PolicyCatalog, race: RaceConfig, track_set: str = "validation"):
        self.catalog, self.viewers, self.manual_control = catalog, Viewers(), ManualControl()
        self._seeds = TRACK_SETS[track_set]
        self.drive = Drive(open_course(race, self._seeds), self.manual_control)
        self.follows = catalog.follower is not None
        self._dreams = RunDreams(catalog.follower) if catalog.follower else None
        self._started_s, self._frames = time.monotonic(), 0
        self._steps: deque[tuple[float, int]] = deque(maxlen=6)  # (time, steps), a second apart
        self._lock, self._registry_calls = asyncio.Lock(), RegistryCalls()
        self._sent_dream: np.ndarray | None = None
        self.late_frames = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the car and follows the run until the block ends."""
        with contextlib.suppress(UserError):  # a damaged champion must not stop the page
            loaded = await self._registry_calls.run(CHANGE_TIMEOUT_S, self.catalog.first)
            await self._set_policy(loaded)
        tasks = [asyncio.create_task(work) for work in (self._run_frames(), self._poll_run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def add_viewer(self, viewer: Viewer) -> None:
        """Adds a viewer, and sends it the current state."""
        self.viewers.add(viewer)
        follower = self.catalog.follower
        rows = [] if follower is None else follower.rows[-_MAX_ROWS_SENT:]
        run = None if follower is None else follower.folder.name
        viewer.send_message(make_message("hello", id=viewer.id, key=viewer.key, run=run))
        viewer.send_message(make_message("track", **report_track(self.drive.car, self._seeds)))
        viewer.send_message(make_message("rows", is_anew=True, rows=rows))
        viewer.send_message(make_message("stats", **self.stats()))
        self.broadcast_state()
        viewer.send_frame(self._pack_tick())

    def remove_viewer(self, viewer: Viewer) -> None:
        """Removes a viewer, and releases control if it had it."""
        self.viewers.remove(viewer)
        if self.manual_control.release(viewer.key):
            self.broadcast_state()

    def take_control(self, client: str) -> None:
        """Gives control to a client; raises ControlTakenError while another one has it."""
        is_connected = self.viewers.find(client) is not None
        if self.manual_control.take(client, is_connected=is_connected):
            self.broadcast_state()

    def start(self) -> None:
        """Starts the car."""
        self.drive.is_running = True
        self.broadcast_state()

    def stop(self) -> None:
        """Pauses the car; the episode is kept."""
        self.drive.is_running = False
        self.broadcast_state()

    def reset(self) -> None:
        """Begins the episode again."""
        self.drive.begin()
        self.viewers.send_frame(self._pack_tick())

    def toggle_control(self) -> bool:
        """Switches between the policy and manual driving; returns whether it is manual now."""
        self.drive.is_manual = not self.drive.is_manual
        self.broadcast_state()
        return self.drive.is_manual

    def go_to_track(self, seed: int | None) -> int:
        """Begins on a track, or on the next one; raises UserError if there is no such track."""
        if seed is not None and seed not in self._seeds:
            raise UserError(
                f"there is no track {seed} here: choose {self._seeds[0]} to {self._seeds[-1]}"
            )
        if seed is None:
            self.drive.next_track()
        else:
            self.drive.begin(seed)
        self._broadcast_track()
        return self.drive.car.track_seed

    async def load(self, file: str) -> str:
        """Drives with a version, a save or the run's newest policy; returns its label."""
        if file == LIVE and self.catalog.follower is None:
            raise UserError("no run is followed here: load a version, e.g. file=champion")
        async with self._lock:
            load = self.catalog.newest if file == LIVE else lambda: self.catalog.load(file)
            loaded = await self._registry_calls.run(CHANGE_TIMEOUT_S, load)
            self.follows = file == LIVE
            await self._set_policy(loaded)
        self.broadcast_state()
        return "nobody" if loaded is None else loaded.label

    async def list_models(self) -> dict[str, Any]:
        """Describes every version, the saves of the run, newest first, and other files."""
        catalog, run = self.catalog, self._registry_calls.run
        lists = {"models": catalog.entries, "saves": catalog.saves, "files": catalog.files}
        return {name: await run(READ_TIMEOUT_S, read) for name, read in lists.items()}

    async def save(self, description: str) -> int:
        """Publishes the policy that drives; returns the number of the new version."""
        policy = self.drive.policy
        if policy is None:
            raise UserError(NO_POLICY)
        number = await self._registry_calls.run(
            CHANGE_TIMEOUT_S, self.catalog.publish, policy.loaded, description
        )
        self.viewers.send_message("versions", newest=number)
        return number

    async def set_ghost(self, file: str | None) -> str | None:
        """Sets the policy of the ghost, or removes the ghost; the episode begins again."""
        loaded = None
        if file is not None:
            run = self._registry_calls.run
            loaded = await run(CHANGE_TIMEOUT_S, self.catalog.load, file)
        self.drive.ghost = None if loaded is None else StatefulPolicy(loaded)
        self.drive.begin()
        self.broadcast_state()
        return None if loaded is None else loaded.label

    def state(self) -> dict[str, Any]:
        """Describes who drives; changes rarely."""
        state = report_state(self.drive, self.manual_control, self.viewers)
        return {**state, "follows": self.follows}

    def stats(self) -> dict[str, Any]:
        """Returns the figures of `/stats`."""
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
        """Returns the rate of the car's steps over the last seconds."""
        if len(self._steps) < 2:
            return 0.0
        (then_s, before), (now_s, after) = self._steps[0], self._steps[-1]
        return (after - before) / (now_s - then_s)

    def broadcast_state(self) -> None:
        """Tells every viewer who drives."""
        self.viewers.send_message("state", **self.state())

    def _broadcast_track(self) -> None:
        self.viewers.send_message("track", **report_track(self.drive.car, self._seeds))
        self.viewers.send_frame(self._pack_tick())

    def _pack_tick(self) -> bytes:
        return pack_tick(self._frames, 1000.0 * time.monotonic(), self.drive.tick())

    async def _run_frames(self) -> None:
        """Advances the car 60 times a second, even if the machine's clock is changed."""
        due_s = time.monotonic()
        while True:
            self._frames += 1
            try:
                self._run_frame()
            except Exception:  # an error in one frame must not end the session
                _LOGGER.exception("the live session stopped the car")
                self.stop()
            due_s += 1.0 / FRAMES_PER_S
            wait_s = due_s - time.monotonic()
            if wait_s < -_MAX_LATE_S:
                self.late_frames += round(-wait_s * FRAMES_PER_S)
                due_s = time.monotonic()
            await asyncio.sleep(max(0.0, wait_s))

    def _run_frame(self) -> None:
        """Advances the car by a frame, and sends the viewers what has changed."""
        drive, track_seed, steps = self.drive, self.drive.car.track_seed, self.drive.steps
        event = drive.frame()
        if event is not None:
            self.viewers.send_message(event.pop("kind"), **event)
        if drive.car.track_seed != track_seed:
            self._broadcast_track()
        is_due = drive.is_running or self._frames % _STOPPED_EVERY_FRAMES == 0
        if not len(self.viewers) or not is_due:
            return
        self.viewers.send_frame(self._pack_tick())
        now_ms = 1000.0 * time.monotonic()
        has_stepped = drive.steps != steps and drive.steps % _LATENT_EVERY_STEPS == 0
        if has_stepped and drive.latent is not None:
            self.viewers.send_frame(pack_latent(self._frames, now_ms, drive.latent))
        if drive.dream is not None and drive.dream is not self._sent_dream:
            self.viewers.send_frame(pack_dream(self._frames, now_ms, drive.dream))
            self._sent_dream = drive.dream

    async def _poll_run(self) -> None:
        """Reads the run and sends the figures, once a second."""
        while True:
            try:
                await self._follow_run()
            except UserError as error:  # a save was deleted while it was read: the next will do
                _LOGGER.info("following the run: %s", error)
            except Exception:
                _LOGGER.exception("following the run")
            if self.manual_control.driver is not None and self.manual_control.is_idle():
                self.manual_control.release(self.manual_control.driver)
                self.broadcast_state()
            self._steps.append((time.monotonic(), self.drive.steps))
            self.viewers.send_message("stats", **self.stats())
            await asyncio.sleep(1.0)

    async def _follow_run(self) -> None:
        follower = self.catalog.follower
        if follower is None or self._dreams is None:
            return
        is_anew, rows = await asyncio.to_thread(follower.read)
        if is_anew or rows:
            rows = follower.rows[-_MAX_ROWS_SENT:] if is_anew else rows
            self.viewers.send_message("rows", is_anew=is_anew, rows=rows)
        async with self._lock:
            if self.follows:
                policy = self.drive.policy
                env_steps = -1 if policy is None else policy.loaded.env_steps or -1
                await self._set_policy(await asyncio.to_thread(self.catalog.newest, env_steps))
        model = await asyncio.to_thread(self._dreams.newest)
        if model is not None:
            config, params = model
            dreamer = self.drive.dreamer
            if dreamer is not None and dreamer.config == config:
                dreamer.set_params(params)
            else:
                car = Car(self.drive.car.course)
                self.drive.dreamer = await asyncio.to_thread(open_dreamer, config, params, car)
            self.broadcast_state()

    async def _set_policy(self, loaded: LoadedPolicy | None) -> None:
        """Lets a policy drive, in the race in which it was trained."""
        if loaded is None:
            return
        if loaded.race != self.drive.car.course.config:
            course = await asyncio.to_thread(open_course, loaded.race, self._seeds)
            self.drive.set_course(course)
            self._broadcast_track()
        self.drive.set_policy(loaded)
        self.broadcast_state()


def open_live(
    registry: str | Path,
    run: Path | None = None,
    race: RaceConfig | None = None,
    *,
    preferred: str = "champion",
) -> LiveSession:
    """Makes a session that begins in `race`, until a policy sets its own. Blocks for seconds.

    Without a run, the version with the alias or number `preferred` drives first.
    """
    disable_async_dispatch()
    return LiveSession(open_catalog(registry, run, preferred), race or RaceConfig())
