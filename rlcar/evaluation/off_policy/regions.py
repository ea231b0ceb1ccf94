"""Where in the race the data is thin and a policy leaves it: by speed and by bend."""

from typing import Any, NamedTuple

import numpy as np

from rlcar.datasets import Dataset
from rlcar.datasets.coverage import THIN, bend_of, thin_cells
from rlcar.evaluation.off_policy import support
from rlcar.evaluation.off_policy.logged import Logged

_BINS = 6
_SPEED = "speed"


class Regions(NamedTuple):
    """Speed and bend of each row of the data."""

    speed: np.ndarray  # [M], as a share of the top speed
    bend: np.ndarray  # [M] in [-1, 1], as `bend_of` defines it; left > 0
    speed_edges: np.ndarray  # [B + 1]
    bend_edges: np.ndarray  # [B + 1]

    def shares(self, row: np.ndarray, is_outside: np.ndarray) -> dict[str, list[float]]:
        """Returns the share of actions outside the support by speed and by bend."""
        return {
            "speed": support.share_by_bin(self.speed[row], self.speed_edges, is_outside),
            "bend": support.share_by_bin(self.bend[row], self.bend_edges, is_outside),
        }

    def counts(self) -> np.ndarray:
        """Returns the number of transitions in each cell of speed and bend, `[B, B]`."""
        counts, _, _ = np.histogram2d(
            np.clip(self.speed, self.speed_edges[0], self.speed_edges[-1]),
            np.clip(self.bend, self.bend_edges[0], self.bend_edges[-1]),
            (self.speed_edges, self.bend_edges),
        )
        return counts.astype(int)

    def coverage(self) -> dict[str, Any]:
        """Returns the edges of the cells and the number of transitions in each, for JSON."""
        return {
            "speed_edges": self.speed_edges.tolist(),
            "bend_edges": self.bend_edges.tolist(),
            "transitions": self.counts().tolist(),
        }

    def warnings(self) -> list[str]:
        """Says where the data is thin; empty if it is not."""
        counts = self.counts()
        thin = int(thin_cells(counts).sum())
        if not thin:
            return []
        slowest, fastest = self.speed.min(), self.speed.max()
        return [
            f"{thin} of {int((counts > 0).sum())} visited cells of speed and bend hold fewer than "
            f"{THIN} transitions; recorded speeds are {slowest:.2f} to {fastest:.2f} of the top "
            "speed"
        ]


def regions_of(dataset: Dataset, logged: Logged) -> Regions | None:
    """Returns speed and bend of each row; None if the data is not of the race."""
    if dataset.world.race is None:
        return None
    names = [entry.name for entry in dataset.description.observation]
    return Regions(
        logged.observation[:, names.index(_SPEED)],
        bend_of(logged.observation),
        np.linspace(0.0, 1.0, _BINS + 1),
        np.linspace(-1.0, 1.0, _BINS + 1),
    )
