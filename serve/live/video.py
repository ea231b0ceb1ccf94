"""Motion JPEG of the drive, for clients that can only show pictures."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import numpy as np
import simplejpeg

from rlcar.sim.renderer import SIZE_PX, Car, Renderer, Scene
from rlcar.track import make_track
from serve.live.scene import SceneDrive
from serve.live.session import LiveSession

BOUNDARY = "frame"
VIDEO_FRAMES_PER_S = 30.0
JPEG_QUALITY = 70
MAX_WATCHING = 16
MAX_WATCHING_PER_OWNER = 8  # of one token or address


class VideoFeed:
    """Draws and encodes each frame once for all clients, and none while there is no client."""

    def __init__(self, live: LiveSession, quality: int = JPEG_QUALITY):
        self._live, self._quality = live, quality
        self._renderer: tuple[tuple[int, object], Renderer] | None = None
        self._frame = b""
        self._has_frame = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._watching: Counter[str] = Counter()

    def is_full(self, owner: str) -> bool:
        """Whether the limit of clients, in total or for this owner, is reached."""
        total = self._watching.total()
        return total >= MAX_WATCHING or self._watching[owner] >= MAX_WATCHING_PER_OWNER

    @contextlib.contextmanager
    def watched_by(self, owner: str) -> Iterator[None]:
        """Counts one client, and draws as long as there is at least one."""
        self._watching[owner] += 1
        if self._task is None:
            self._task = asyncio.create_task(self._draw())
        try:
            yield
        finally:
            self._watching[owner] -= 1
            self._watching += Counter()  # removes owners without clients
            if not self._watching and self._task is not None:
                self._task.cancel()
                self._task = None

    async def parts(self) -> AsyncIterator[bytes]:
        """Yields the parts of the endless stream."""
        while True:
            async with self._has_frame:
                await self._has_frame.wait()
                frame = self._frame
            yield frame

    async def _draw(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            jpeg = await asyncio.to_thread(self.picture)
            head = (
                f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            )
            async with self._has_frame:
                self._frame = head.encode() + jpeg + b"\r\n"
                self._has_frame.notify_all()
            due_s = max(due_s + 1.0 / VIDEO_FRAMES_PER_S, loop.time())
            await asyncio.sleep(due_s - loop.time())

    def picture(self) -> bytes:
        """Draws the current state of the drive as a JPEG, 800x600 in the race."""
        drive = self._live.drive
        if isinstance(drive, SceneDrive):
            return drive.picture()
        car, tick = drive.car, drive.tick()
        key = (car.track_seed, car.course.config)
        if self._renderer is None or self._renderer[0] != key:
            track = make_track(car.track_seed, car.course.config.track)
            self._renderer = key, Renderer(track)
        renderer = self._renderer[1]
        policy = "no policy yet" if drive.policy is None else drive.policy.loaded.label
        pose, ghost = tick.pose, tick.ghost
        surface = renderer.draw(
            Scene(
                Car(pose.x_px, pose.y_px, pose.heading_deg, pose.speed_px_per_step),
                rays=tick.rays,
                rival=tick.rival,
                ghosts=() if ghost is None else [Car(ghost.x_px, ghost.y_px, ghost.heading_deg)],
                progress=pose.progress,
                mode="by hand" if drive.is_manual else policy,
                latent=None if drive.is_manual else drive.latent,
            )
        )
        pixels = np.frombuffer(surface.get_buffer().raw, np.uint8)
        pixels = pixels.reshape(SIZE_PX[1], SIZE_PX[0], 4)
        return simplejpeg.encode_jpeg(pixels, quality=self._quality, colorspace="BGRX")
