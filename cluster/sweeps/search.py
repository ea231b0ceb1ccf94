"""Search algorithms whose trials lie in the current folder of the sweep.

Tune stores with a search algorithm the experiment from the start of the sweep, with the absolute
path of its folder. In a copy of the folder, new trials would be written into the original.
"""

import copy
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator, Searcher, SearchGenerator


class _TrialsHere:
    """Mixin for a search algorithm of Tune: places each new trial below `folder`."""

    folder: Path

    def next_trial(self) -> Trial | None:
        """Returns the next trial, if there is one."""
        trial: Trial | None = super().next_trial()  # type: ignore[misc]
        if trial is not None:
            assert trial.storage is not None, trial
            storage = copy.copy(trial.storage)
            storage.storage_fs_path = self.folder.as_posix()
            trial.set_storage(storage)
        return trial

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a stored state, except for its folder."""
        folder = self.folder
        super().set_state(state)  # type: ignore[misc]
        self.folder = folder


class _VariantsHere(_TrialsHere, BasicVariantGenerator):
    """Random and grid search."""


class _SearchHere(_TrialsHere, SearchGenerator):
    """Any other way to choose settings."""


def variants(folder: Path, **options: Any) -> BasicVariantGenerator:
    """Returns random or grid search; `options` are those of `BasicVariantGenerator`."""
    algorithm = _VariantsHere(**options)
    algorithm.folder = folder
    return algorithm


def search(folder: Path, searcher: Searcher) -> SearchGenerator:
    """Returns a search algorithm that creates the trials which a searcher chooses."""
    algorithm = _SearchHere(searcher)
    algorithm.folder = folder
    return algorithm
