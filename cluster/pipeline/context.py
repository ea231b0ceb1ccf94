"""What a stage of a pipeline works with, and what it returns."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cluster.pipeline.journal import Outcome, Run
from cluster.pipeline.settings import PipelineSettings
from rlcar.registry import Registry

Say = Callable[[str], None]


class Context(NamedTuple):
    """Everything that a stage needs besides the outputs of earlier stages."""

    settings: PipelineSettings
    registry: Registry
    run: Run
    say: Say
    check: Callable[[], None] = lambda: None
    """Raises HeldError if another process has taken the pipeline over."""

    @property
    def name(self) -> str:
        """The name of the run in versions, folders and journals, such as `nightly-0007`."""
        return f"{self.settings.name}-{self.run.number:04d}"

    @property
    def training(self) -> Path:
        """The folder of the run's trainings; runs are called after it."""
        return self.run.folder / "training" / self.name


class Done(NamedTuple):
    """The result of a stage."""

    outputs: dict[str, Any]
    sentence: str
    outcome: Outcome | None = None  # of the whole run, if it ends here


class Stage(NamedTuple):
    """A step of a run, which is repeated if its process ends before its entry is written."""

    name: str
    inputs: tuple[str, ...]  # names of outputs of earlier stages
    work: Callable[[Context, Mapping[str, Any]], Done]
