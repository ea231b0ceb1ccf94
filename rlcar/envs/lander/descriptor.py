"""The descriptor of the lander, by which the rest of the program knows it."""

from typing import Any

from rlcar.envs.descriptor import CompiledDescriptor, Figure, SceneRenderer
from rlcar.envs.lander.settings import LanderSettings
from rlcar.types import Array, CompiledEnvironment, Policy


def _make(settings: LanderSettings) -> CompiledEnvironment:
    from rlcar.envs.lander.environment import make_lander

    return make_lander(settings)


def _entries(settings: LanderSettings) -> Any:
    from rlcar.envs.lander.observation import entries_of

    return entries_of(settings)


def _infeasibility(settings: LanderSettings) -> str | None:
    from rlcar.envs.lander.bounds import infeasibility

    return infeasibility(settings)


def _guidance(settings: LanderSettings) -> Policy:
    from rlcar.envs.lander.guidance import guidance_policy

    del settings  # The law is the same for all of them.
    return guidance_policy()


def _view(state: Any) -> dict[str, Array]:
    from rlcar.envs.lander.environment import view_of

    return view_of(state)


def _make_renderer(settings: LanderSettings) -> SceneRenderer:
    from rlcar.envs.lander.renderer import LanderRenderer

    return LanderRenderer(settings)


LANDER = CompiledDescriptor(
    id="rlcar/Lander-v0",
    settings=LanderSettings,
    make=_make,
    entries=_entries,
    infeasibility=_infeasibility,
    figures={
        "is_soft": Figure("", "1 for a landing at less than 2 m/s, else 0."),
        "east_m": Figure("m", "position at the end along the x axis, from the pad's centre."),
        "north_m": Figure("m", "position at the end along the y axis, from the pad's centre."),
        "distance_m": Figure("m", "horizontal distance to the centre of the pad at the end."),
        "touchdown_speed_m_s": Figure("m/s", "speed at the end."),
        "fuel_fraction": Figure("", "fuel left at the end, over a full tank."),
        "smoothness": Figure("", "squared change of the action from one step to the next."),
    },
    baselines={"guidance": _guidance},
    view=_view,
    end_place=("east_m", "north_m"),
    step_s=0.1,
    make_renderer=_make_renderer,
)
