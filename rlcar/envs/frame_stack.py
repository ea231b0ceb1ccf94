"""Stacks the newest images of each environment along their channels, the oldest first."""

import numpy as np

from rlcar.types import Spec


def stacked_spec(spec: Spec, frames: int) -> Spec:
    """Returns the spec of an environment whose images are stacks of `frames` images."""
    if spec.image_shape is None:
        return spec
    height_px, width_px, channels = spec.image_shape
    return spec._replace(image_shape=(height_px, width_px, channels * frames))


class FrameStack:
    """The newest `frames` images of N environments; an episode begins with copies of its first."""

    def __init__(self, frames: int):
        self._frames = frames
        self._stack = np.zeros((0, 0, 0, 0), np.uint8)  # [N, height, width, frames * channels]

    def push(self, image: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Returns the stacks `[N, height, width, frames * C]` that end with `image` `[N, ..., C]`.

        `is_first` `[N]` marks the environments whose episodes begin with this image. It must be
        true for all of them in the first call.
        """
        if self._frames == 1:
            return image
        filled = np.tile(image, (1, 1, 1, self._frames))
        if is_first.all():
            self._stack = filled
        else:
            shifted = np.concatenate([self._stack[..., image.shape[3] :], image], axis=3)
            self._stack = np.where(is_first[:, None, None, None], filled, shifted)
        return self._stack
