"""Searchers whose trials lie in the folder that a sweep has now.

Tune keeps with a searcher the experiment as it was when the sweep began, with the absolute path of
its folder. In a sweep that was moved or copied, new trials would be written into the original.
"""

import copy
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator, Searcher, SearchGenerator


class _TrialsHere:
    """Mixed into a search algorithm of Tune: puts each new trial below `folder`."""

    folder: Path

    def next_trial(self) -> Trial | None:
        """Returns the next trial, if there is one."""
        trial: Trial | None = super().next_trial()  # type: ignore[misc]
        if trial is not None:
            assert trial.storage is not None, trial
            here = copy.copy(trial.storage)
            here.storage_fs_path = self.folder.as_posix()
            trial.set_storage(here)
        return trial

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over what an earlier leg has left, but for its folder."""
        folder = self.folder
        super().set_state(state)  # type: ignore[misc]
        self.folder = folder


class _VariantsHere(_TrialsHere, BasicVariantGenerator):
    """Random and grid search."""


class _SearchHere(_TrialsHere, SearchGenerator):
    """Whatever else chooses settings."""


def variants(folder: Path, **options: Any) -> BasicVariantGenerator:
    """Random and grid search; `options` are those of `BasicVariantGenerator`."""
    found = _VariantsHere(**options)
    found.folder = folder
    return found


def search(folder: Path, searcher: Searcher) -> SearchGenerator:
    """The trials that a searcher chooses."""
    found = _SearchHere(searcher)
    found.folder = folder
    return found
