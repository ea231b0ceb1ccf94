"""The integer grid every track lies on, and the world it lies in.

Coordinates are y **up** here and in the simulator's state; the public float views turn them to the
screen's y down. A vertex is two int16 packed in an int32: x in the high half, y in the low half.
"""

import numpy as np

WORLD_WIDTH_PX = 800
WORLD_HEIGHT_PX = 600
CENTRE_X_PX = 400
CENTRE_Y_PX = 300

UNITS_PER_PX = 32  # vertices and obstacles: 1/32 px; int16 then reaches +-1,023 px
LAP_UNITS = 1 << 20  # positions along the road: 2^-20 of a lap
HEADING_UNITS = 1 << 22  # headings: 2^-22 of a turn
REACH_UNITS_PER_PX = 256  # distances that meet the car's position: 1/256 px


def pack(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Packs coordinates in 1/32 px (each within int16) into int32."""
    return (x.astype(np.int32) << 16) | (y.astype(np.int32) & 0xFFFF)


def unpack_x(packed):  # type: ignore[no-untyped-def]  # NumPy or JAX, int32 or wider
    """Returns the x of packed vertices, in 1/32 px."""
    return packed >> 16


def unpack_y(packed):  # type: ignore[no-untyped-def]  # NumPy or JAX, int32 or wider
    """Returns the y (up) of packed vertices, in 1/32 px."""
    return ((packed & 0xFFFF) ^ 0x8000) - 0x8000


def unpack_px(packed: np.ndarray) -> np.ndarray:
    """Returns screen coordinates (y down), `[..., 2]` float64 px."""
    x_px = unpack_x(packed) / UNITS_PER_PX
    y_px = WORLD_HEIGHT_PX - unpack_y(packed) / UNITS_PER_PX
    return np.stack([x_px, y_px], axis=-1)
