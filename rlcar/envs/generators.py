"""Separate states of the global random generators of Python and NumPy for environments."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class GlobalGenerators:
    """States of `random` and `numpy.random` that belong to one group of environments.

    With them, environments that draw from the global generators give the same episodes for the same
    seeds, even if other code draws from the generators in between.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        words = np.random.SeedSequence(list(seeds)).generate_state(2)
        self._python: Any = random.Random(int(words[0])).getstate()
        # Such environments use NumPy's legacy generator.
        self._numpy: Any = np.random.RandomState(int(words[1])).get_state()  # noqa: NPY002

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Installs these states inside the block and restores the previous ones at its end."""
        before: Any = random.getstate(), np.random.get_state()  # noqa: NPY002
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        try:
            yield
        finally:
            self._python, self._numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
