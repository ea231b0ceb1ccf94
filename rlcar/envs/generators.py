"""The global random generators of Python and NumPy, seeded for each group of environments."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class GlobalGenerators:
    """States of `random` and `numpy.random` that belong to one group of environments.

    Environments that draw from the global generators then give the same episodes for the same
    seeds, whatever else draws from those generators between two uses of the group.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        words = np.random.SeedSequence(list(seeds)).generate_state(2)
        self._python: Any = random.Random(int(words[0])).getstate()
        # The legacy generator is the one that such environments use.
        self._numpy: Any = np.random.RandomState(int(words[1])).get_state()  # noqa: NPY002

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Makes these states the global ones, and puts the earlier ones back at the end."""
        before: Any = random.getstate(), np.random.get_state()  # noqa: NPY002
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        try:
            yield
        finally:
            self._python, self._numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
