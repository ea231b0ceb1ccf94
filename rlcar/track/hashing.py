"""One small integer hash: tracks and resets are drawn from it, so no generator state travels."""

from typing import Any

import numpy as np

_GOLDEN = np.uint32(0x9E3779B9)


def mix(word: Any) -> Any:
    """Scrambles uint32 words (lowbias32 of Chris Wellons); NumPy or JAX arrays, any shape."""
    word = word ^ (word >> 16)
    word = word * np.uint32(0x7FEB352D)
    word = word ^ (word >> 15)
    word = word * np.uint32(0x846CA68B)
    return word ^ (word >> 16)


def hash_words(*words: Any) -> Any:
    """Hashes equally shaped integer arrays, word by word, into one uint32 array."""
    state = mix(words[0].astype(np.uint32) + _GOLDEN)
    for word in words[1:]:
        state = mix((state ^ word.astype(np.uint32)) + _GOLDEN)
    return state


def uniform(seeds: np.ndarray, stream: int) -> np.ndarray:
    """Returns float64 in [0, 1) for each seed `[M]`; each `stream` number is drawn once."""
    return hash_words(seeds, np.full_like(seeds, stream)) * 2.0**-32
