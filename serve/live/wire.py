"""The binary messages of the live page's stream; little-endian, numbers are float32.

Every message begins with 16 bytes: its kind, three small numbers, a counter (uint32) and the
server's clock (float64 ms). `page/js/wire.js` decodes them.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

TICK, DREAM, LATENT, PICTURE = 1, 2, 3, 4
RUNNING, MANUAL, BRAKING, ENDED = 1, 2, 4, 8  # flags of a tick
DREAM_COLUMNS = 16  # x, y, heading, dreamt rays, real rays, speed, reward, continues

_HEAD = struct.Struct("<BBBBId")


class Pose(NamedTuple):
    """The position and motion of a car, in screen coordinates."""

    x_px: float
    y_px: float
    heading_deg: float
    speed_px_per_step: float
    progress: float

    def towards(self, other: "Pose", share: float) -> "Pose":
        """Interpolates to another pose, which is reached at share 1; turns the shorter way."""
        turn_deg = (other.heading_deg - self.heading_deg + 180.0) % 360.0 - 180.0
        return Pose(
            self.x_px + share * (other.x_px - self.x_px),
            self.y_px + share * (other.y_px - self.y_px),
            (self.heading_deg + share * turn_deg) % 360.0,
            self.speed_px_per_step + share * (other.speed_px_per_step - self.speed_px_per_step),
            self.progress + share * (other.progress - self.progress),
        )


class Tick(NamedTuple):
    """One frame of the stream."""

    flags: int
    pose: Pose
    action: tuple[float, float]
    episode_steps: float
    reward: float  # of the episode so far
    rays: Sequence[float]
    rival: tuple[float, float, float] | None  # x, y, radius in px
    ghost: Pose | None


def pack_tick(count: int, time_ms: float, tick: Tick) -> bytes:
    """Packs a frame: 14 numbers, then the 3 of a rival and the 5 of a ghost, if there are any."""
    numbers = [*tick.pose, *tick.action, tick.episode_steps, tick.reward, *tick.rays]
    numbers += [*(tick.rival or ()), *(tick.ghost or ())]
    others = bool(tick.rival) + 2 * bool(tick.ghost)
    head = _HEAD.pack(TICK, tick.flags, others, 0, count & 0xFFFFFFFF, time_ms)
    return head + struct.pack(f"<{len(numbers)}f", *numbers)


def pack_picture(
    count: int, time_ms: float, flags: int, numbers: tuple[float, float], jpeg: bytes
) -> bytes:
    """Packs a picture of another environment: steps and reward of its episode, and the JPEG."""
    head = _HEAD.pack(PICTURE, flags, 0, 0, count & 0xFFFFFFFF, time_ms)
    return head + struct.pack("<2f", *numbers) + jpeg


def pack_dream(count: int, time_ms: float, steps: np.ndarray) -> bytes:
    """Packs a dream, `[H, DREAM_COLUMNS]`; NaN stands for steps after the episode's end."""
    assert steps.shape[1] == DREAM_COLUMNS, steps.shape
    head = _HEAD.pack(DREAM, len(steps), 0, 0, count & 0xFFFFFFFF, time_ms)
    return head + steps.astype("<f4").tobytes()


def pack_latent(count: int, time_ms: float, latent: np.ndarray) -> bytes:
    """Packs probabilities `[S, K]` as bytes, row by row."""
    groups, classes = latent.shape
    head = _HEAD.pack(LATENT, groups & 0xFF, classes & 0xFF, 0, count & 0xFFFFFFFF, time_ms)
    return head + np.rint(np.clip(latent, 0.0, 1.0) * 255.0).astype(np.uint8).tobytes()
