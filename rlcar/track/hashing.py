"""An integer hash in place of a random generator, so that no generator state has to be kept.

Tracks, resets and hidden conditions are hashes of their seeds.
"""

import numpy as np

from rlcar.types import Array

_GOLDEN = np.uint32(0x9E3779B9)  # 2^32 / golden ratio, as in many hash functions


def mix(word: Array) -> Array:
    """Returns mixed uint32 words of any shape (lowbias32 of Chris Wellons)."""
    word = word ^ (word >> 16)
    word = word * np.uint32(0x7FEB352D)
    word = word ^ (word >> 15)
    word = word * np.uint32(0x846CA68B)
    return word ^ (word >> 16)


def hash_words(*words: Array) -> Array:
    """Returns the uint32 hash of integer arrays of one shape, entry by entry."""
    state = mix(words[0].astype(np.uint32) + _GOLDEN)
    for word in words[1:]:
        state = mix((state ^ word.astype(np.uint32)) + _GOLDEN)
    return state


def uniform(seeds: np.ndarray, stream: int) -> np.ndarray:
    """Returns a float64 number in [0, 1) for each seed `[M]`; streams are independent."""
    return hash_words(seeds, np.full_like(seeds, stream)) * 2.0**-32
