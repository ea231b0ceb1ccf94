"""The live session: one car or scene in real time, its viewers, and the one client in control."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np

from rlcar.config import EnvironmentConfig
from rlcar.config.race import RaceConfig
from rlcar.devices.selection import disable_async_dispatch
from rlcar.errors import UserError
from rlcar.track import set_seeds
from serve.live.car import Car, Course, open_course
from serve.live.dream import RunDreams, open_dreamer
from serve.live.drive import FRAMES_PER_S, Drive
from serve.live.loaded_policy import LoadedPolicy, StatefulPolicy
from serve.live.manual_control import ManualControl
from serve.live.policy_catalog import LIVE, PolicyCatalog, open_catalog
from serve.live.report import report_state, report_stats
from serve.live.scene import ONLY_RACE, SceneDrive
from serve.live.viewers import Viewer, Viewers, make_message
from serve.live.wire import pack_dream, pack_latent
from serve.policy.registry_calls import CHANGE_TIMEOUT_S, READ_TIMEOUT_S, RegistryCalls

NO_POLICY = "there is no policy yet: wait for the run's first save, or load one"
_MAX_LATE_S = 0.25  # a loop that is later drops frames instead of catching up
_STOPPED_EVERY_FRAMES = 30  # while the car stands, one frame in so many is sent
_LATENT_EVERY_STEPS = 3
_MAX_ROWS_SENT = 400  # of the run's metrics, to a new viewer
_LOGGER = logging.getLogger(__name__)


class LiveSession:
    """Runs the car or another environment.

    Call every method but the constructor from its event loop. `async with session.running()`
    starts it. Work that blocks (the disk, compilation) runs in a thread.
    """

    def __init__(
        self,
        catalog: PolicyCatalog,
        race: RaceConfig,
        track_set: str = "validation",
        scene: SceneDrive | None = None,
    ):
        """Shows `scene`, if it is given, in place of the race."""
        self.catalog, self.viewers, self.manual_control = catalog, Viewers(), ManualControl()
        self._track_set = track_set
        self.drive: Drive | SceneDrive = scene or Drive(
            self._open_course(race), self.manual_control
        )
        self.follows = catalog.follower is not None
        self._dreams = RunDreams(catalog.follower) if catalog.follower else None
        self._started_s, self._frames = time.monotonic(), 0
        self._steps: deque[tuple[float, int]] = deque(maxlen=6)  # (time, steps), a second apart
        self._lock, self._registry_calls = asyncio.Lock(), RegistryCalls()
        self._sent_dream: np.ndarray | None = None
        self._sent_picture: bytes | None = None
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
            await asyncio.to_thread(self.drive.close)

    def race_drive(self, what: str) -> Drive:
        """Returns the drive of the race; raises UserError, which names `what`, without one."""
        if isinstance(self.drive, SceneDrive):
            raise UserError(ONLY_RACE.format(self.drive.name, what))
        return self.drive

    def add_viewer(self, viewer: Viewer) -> None:
        """Adds a viewer, and sends it the current state."""
        self.viewers.add(viewer)
        follower = self.catalog.follower
        rows = [] if follower is None else follower.rows[-_MAX_ROWS_SENT:]
        run = None if follower is None else follower.folder.name
        viewer.send_message(make_message("hello", id=viewer.id, key=viewer.key, run=run))
        kind, fields = self.drive.describe()
        viewer.send_message(make_message(kind, **fields))
        viewer.send_message(make_message("rows", is_anew=True, rows=rows))
        viewer.send_message(make_message("stats", **self.stats()))
        self.broadcast_state()
        frame = self._pack()
        if frame is not None:
            viewer.send_frame(frame)

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
        self._send_frame()

    def toggle_control(self) -> bool:
        """Switches between the policy and manual driving; returns whether it is manual now."""
        drive = self.race_drive("driving by hand")
        drive.is_manual = not drive.is_manual
        self.broadcast_state()
        return drive.is_manual

    def go_to_track(self, seed: int | None) -> int:
        """Begins on a track, or on the next one; raises UserError if there is no such track."""
        drive = self.race_drive("a choice of tracks")
        seeds = drive.car.course.seeds
        if seed is not None and seed not in seeds:
            raise UserError(f"there is no track {seed} here: choose {seeds[0]} to {seeds[-1]}")
        if seed is None:
            drive.next_track()
        else:
            drive.begin(seed)
        self._broadcast_place()
        return drive.car.track_seed

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
        drive = self.race_drive("a ghost")
        loaded = None
        if file is not None:
            run = self._registry_calls.run
            loaded = await run(CHANGE_TIMEOUT_S, self.catalog.load, file)
        drive.ghost = None if loaded is None else StatefulPolicy(loaded)
        drive.begin()
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

    def _broadcast_place(self) -> None:
        kind, fields = self.drive.describe()
        self.viewers.send_message(kind, **fields)
        self._send_frame()

    def _send_frame(self) -> None:
        frame = self._pack()
        if frame is not None:
            self.viewers.send_frame(frame)

    def _pack(self) -> bytes | None:
        return self.drive.pack(self._frames, 1000.0 * time.monotonic())

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
        """Advances by a frame, and sends the viewers what has changed."""
        drive, steps = self.drive, self.drive.steps
        track_seed = None if isinstance(drive, SceneDrive) else drive.car.track_seed
        event = drive.frame(1.0 / FRAMES_PER_S)
        if event is not None:
            self.viewers.send_message(event.pop("kind"), **event)
        if isinstance(drive, SceneDrive):
            self._send_picture(drive)
            return
        if drive.car.track_seed != track_seed:
            self._broadcast_place()
        is_due = drive.is_running or self._frames % _STOPPED_EVERY_FRAMES == 0
        if not len(self.viewers) or not is_due:
            return
        self._send_frame()
        has_stepped = drive.steps != steps
        self._send_latent(drive.latent if has_stepped else None)
        if drive.dream is not None and drive.dream is not self._sent_dream:
            now_ms = 1000.0 * time.monotonic()
            self.viewers.send_frame(pack_dream(self._frames, now_ms, drive.dream))
            self._sent_dream = drive.dream

    def _send_picture(self, scene: SceneDrive) -> None:
        """Sends each picture once; a page that is opened later gets the newest one."""
        scene.is_watched = len(self.viewers) > 0
        if not scene.is_watched or scene.jpeg is self._sent_picture:
            return
        self._sent_picture = scene.jpeg
        self._send_frame()
        self._send_latent(scene.latent)

    def _send_latent(self, latent: np.ndarray | None) -> None:
        if latent is not None and self.drive.steps % _LATENT_EVERY_STEPS == 0:
            now_ms = 1000.0 * time.monotonic()
            self.viewers.send_frame(pack_latent(self._frames, now_ms, latent))

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
        if isinstance(self.drive, SceneDrive):
            return
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

    def _open_course(self, race: RaceConfig) -> Course:
        """Returns the race on the page's tracks, or on those of its own; blocks for seconds."""
        return open_course(race, set_seeds(self._track_set, race.track))

    async def _set_policy(self, loaded: LoadedPolicy | None) -> None:
        """Lets a policy drive, in the race in which it was trained."""
        if loaded is None:
            return
        if isinstance(self.drive, SceneDrive):
            self.drive.set_policy(loaded)
            self.broadcast_state()
            return
        if loaded.environment:
            raise UserError(
                f"{loaded.label} acts in {loaded.environment}, and this page shows the race: open "
                "the page of its run"
            )
        if loaded.race != self.drive.car.course.config:
            course = await asyncio.to_thread(self._open_course, loaded.race)
            self.drive.set_course(course)
            self._broadcast_place()
        self.drive.set_policy(loaded)
        self.broadcast_state()


def open_live(
    registry: str | Path,
    run: Path | None = None,
    race: RaceConfig | None = None,
    *,
    environment: EnvironmentConfig | None = None,
    preferred: str = "champion",
) -> LiveSession:
    """Makes a session that begins in `race`, until a policy sets its own. Blocks for seconds.

    With `environment` it shows that environment in place of the race. Without a run, the version
    with the alias or number `preferred` drives first, and decides what is shown. Raises ConfigError
    if the environment cannot be made.
    """
    disable_async_dispatch()
    catalog = open_catalog(registry, run, preferred)
    if run is None and race is None and environment is None:
        with contextlib.suppress(UserError):  # a damaged champion must not stop the page
            first = catalog.first()
            environment = None if first is None else first.policy.config.environment
    scene = None
    if environment is not None and environment.id:
        scene = SceneDrive(environment)
    return LiveSession(catalog, race or RaceConfig(), scene=scene)
