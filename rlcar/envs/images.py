"""Recognises image observations and converts them to squares with the channels last.

An image is a Box of uint8 with bounds 0 and 255 everywhere and one of these shapes. Height and
width are at least 16 pixels.

    (height, width)               one channel
    (height, width, channels)     1 to 12 channels, for example four stacked colour frames
    (channels, height, width)     the same with the channels first, as in PyTorch

The last two layouts cannot be confused, because sides have at least 16 pixels and there are at most
12 channels. Every other observation is a vector of numbers.
"""

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from PIL import Image

_SHORTEST_SIDE_PX = 16
_MOST_CHANNELS = 12


class Layout(NamedTuple):
    """The layout of an image array."""

    height_px: int
    width_px: int
    channels: int
    is_channels_first: bool = False


def image_layout(space: Any) -> Layout | None:
    """Returns the layout of a space that is an image, None for every other space."""
    if not (isinstance(space, spaces.Box) and space.dtype == np.uint8):
        return None
    layouts = []
    if len(space.shape) == 2:
        height_px, width_px = space.shape
        layouts = [Layout(height_px, width_px, 1)]
    elif len(space.shape) == 3:
        first, middle, last = space.shape
        layouts = [Layout(first, middle, last), Layout(middle, last, first, is_channels_first=True)]
    for layout in layouts:
        is_long = min(layout.height_px, layout.width_px) >= _SHORTEST_SIDE_PX
        if is_long and 1 <= layout.channels <= _MOST_CHANNELS:
            return layout if (space.low == 0).all() and (space.high == 255).all() else None
    return None


def natural_size_px(layouts: list[Layout]) -> int:
    """Returns the common size of images that are all squares of 16, 32 or 64 px; otherwise 64."""
    sizes_px = {size_px for layout in layouts for size_px in layout[:2]}
    return sizes_px.pop() if sizes_px in ({16}, {32}, {64}) else 64


def as_square(image: np.ndarray, layout: Layout, size_px: int) -> np.ndarray:
    """Returns `image` as `[size_px, size_px, channels]`."""
    if layout.is_channels_first:
        image = np.moveaxis(image, 0, -1)
    image = image[..., None] if image.ndim == 2 else image
    if image.shape[:2] == (size_px, size_px):
        return np.ascontiguousarray(image)
    layers = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[..., c])).resize(
                (size_px, size_px), Image.Resampling.BOX
            )
        )
        for c in range(image.shape[2])
    ]
    return np.stack(layers, axis=2)
