"""The descriptor of a compiled environment: everything that the rest of the program asks about it.

This module imports neither JAX nor pygame. Each descriptor imports its simulation and its drawing
inside the functions that need them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from rlcar.config.schema import Entry
from rlcar.settings.section import Section
from rlcar.types import Array, CompiledEnvironment, Policy

Settings = TypeVar("Settings", bound=Section)


class Figure(NamedTuple):
    """What a figure about the end of an episode means; the unit is empty for a pure number."""

    unit: str
    meaning: str


class SceneRenderer(Protocol):
    """Draws the scenes of one episode."""

    def rgb_array(self, state: Any, action: np.ndarray) -> np.ndarray:
        """Returns the picture `[height, width, 3]` uint8 of a state whose N is 1.

        `action` `[A]` is the one that led to it.
        """


@dataclass(frozen=True, kw_only=True)
class CompiledDescriptor(Generic[Settings]):
    """Describes one compiled environment; `rlcar/envs/compiled.py` lists them all."""

    # The id under which Gymnasium makes the same environment. The fields of `settings` are also the
    # keyword arguments of `gymnasium.make`, and every field has a default.
    id: str
    settings: type[Settings]
    make: Callable[[Settings], CompiledEnvironment]
    # Names, units and ranges of the observation `[O]` and the action `[A]`, for the schema that is
    # published with a policy. An `ActionEntry` of the action may name its value in the safe action,
    # which a server sends where the policy gives none in time; for any other entry that is 0.
    entries: Callable[[Settings], tuple[list[Entry], list[Entry]]]
    # A sentence with numbers if no policy could succeed with these settings, otherwise None.
    infeasibility: Callable[[Settings], str | None]
    # What each of `EpisodeEnd.figures` means. Evaluations average them over successful episodes.
    figures: Mapping[str, Figure]
    # Hand-written policies for comparison, by name; each uses the observation alone.
    baselines: Mapping[str, Callable[[Settings], Policy]] = field(default_factory=dict)
    # (state) -> quantities `[N]` with units in their names, which pictures show over time. None
    # without such pictures.
    view: Callable[[Any], dict[str, Array]] | None = None
    # The two figures, in one unit, that a picture shows as the place where each episode ended.
    end_place: tuple[str, str] | None = None
    # The duration of an env step, for the speed of films.
    step_s: float
    # None for an environment that cannot be drawn.
    make_renderer: Callable[[Settings], SceneRenderer] | None = None
