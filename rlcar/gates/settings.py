"""The section `gates` of a file: in camel case, as everything in a rollout's file."""

from typing import Annotated

import pydantic
from pydantic import Field
from pydantic.alias_generators import to_camel

from rlcar.settings.section import Section

# No training, evaluation or report drives tracks of these seeds.
FIRST_TRACK_SEED = 100_000
_MOST_LAPS = 8192  # side by side, of one version in one world
_MOST_TRACKS, _MOST_SEED = 4096, 200  # all their tracks lie before the first circuit

WorldName = Annotated[str, Field(min_length=1, max_length=60)]


class GateSection(Section):
    """A group of settings whose names are in camel case."""

    model_config = pydantic.ConfigDict(alias_generator=to_camel)


class SimulationGate(GateSection):
    """Both versions drive the same tracks with the same random numbers."""

    tracks: int = Field(128, ge=8, le=_MOST_TRACKS)
    """Number of tracks in each world, which neither training nor evaluation uses; for other
    environments the number of episodes."""
    seeds: int = Field(1, ge=1, le=64)
    """Number of laps on each track, with other random numbers for sensors and car."""
    worlds: list[WorldName] = Field([], max_length=20)
    """Named worlds to drive in. By default these are the worlds in which the two versions were
    trained, with all stages of the grand prix if one of them is the grand prix."""
    margin: float = Field(0.0, ge=0.0, le=1e6)
    """Loss that is acceptable, in steps of a lap or in reward of an episode. With 0, the candidate
    must be better; with more, it must not be worse by more than this."""
    seed: int = Field(0, ge=0, le=_MOST_SEED)
    """Seed of all random numbers; another one also chooses other tracks."""

    @pydantic.model_validator(mode="after")
    def _fits_in_memory(self) -> "SimulationGate":
        laps = self.tracks * self.seeds
        if laps > _MOST_LAPS:
            raise ValueError(
                f"{self.tracks} tracks with {self.seeds} seeds are {laps:,} laps side by side, "
                f"more than {_MOST_LAPS:,}: use fewer"
            )
        return self


class DataGate(GateSection):
    """Off-policy evaluation on recorded traffic, compared with the stable version."""

    data: str = Field("", max_length=4096)
    """Folder of the data set, such as one that servers have recorded."""
    allow_unknown: bool = False
    """Also passes a candidate whose verdict is `unknown`."""
    discount: float = Field(0.99, ge=0.0, le=0.9999)
    """Discount of rewards per env step."""
    updates: int = Field(16_000, ge=100, le=10_000_000)
    """Number of updates of the value functions of each version."""
    transitions: int = Field(200_000, ge=100, le=10_000_000)
    """Number of recorded transitions to use, about, in random whole episodes."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Seed of all random numbers."""


class Gates(GateSection):
    """What a candidate must pass before it gets any traffic."""

    simulation: SimulationGate | None = None
    """Paired laps in simulation."""
    off_policy_evaluation: DataGate | None = None
    """Estimates from recorded traffic."""

    @pydantic.model_validator(mode="after")
    def _is_complete(self) -> "Gates":
        if self.simulation is None and self.off_policy_evaluation is None:
            raise ValueError("gates need simulation, offPolicyEvaluation or both")
        if self.off_policy_evaluation is not None and not self.off_policy_evaluation.data:
            raise ValueError("offPolicyEvaluation needs data, the folder of recorded traffic")
        return self
