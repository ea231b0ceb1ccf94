"""The size of the world and the integer grid on which all tracks lie.

Here and in the state of the simulator y points up. The float values for people (`Track`, `CarView`)
are in screen coordinates, where y points down. A vertex is a pair of int16 packed into one int32:
x in the upper half, y in the lower half.
"""

import numpy as np

from rlcar.types import Array

WORLD_WIDTH_PX = 800
WORLD_HEIGHT_PX = 600
CENTRE_X_PX = 400
CENTRE_Y_PX = 300

UNITS_PER_PX = 32  # vertices and obstacles are in 1/32 px, so that int16 reaches +-1,023 px
LAP_UNITS = 1 << 20  # positions along the road are in 2^-20 of a lap
HEADING_UNITS = 1 << 22  # headings are in 2^-22 of a turn
REACH_UNITS_PER_PX = 256  # half-widths are in 1/256 px, like the distances that a car senses


def pack(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Packs coordinates in 1/32 px, each within int16, into int32."""
    return (x.astype(np.int32) << 16) | (y.astype(np.int32) & 0xFFFF)


def unpack_x(packed: Array) -> Array:
    """Returns the x coordinates in 1/32 px of packed vertices, int32 or wider."""
    return packed >> 16


def unpack_y(packed: Array) -> Array:
    """Returns the y coordinates (up) in 1/32 px of packed vertices, int32 or wider."""
    return ((packed & 0xFFFF) ^ 0x8000) - 0x8000


def unpack_px(packed: np.ndarray) -> np.ndarray:
    """Returns the screen coordinates (y down) of packed vertices, `[..., 2]` float64 px."""
    x_px = unpack_x(packed) / UNITS_PER_PX
    y_px = WORLD_HEIGHT_PX - unpack_y(packed) / UNITS_PER_PX
    return np.stack([x_px, y_px], axis=-1)
