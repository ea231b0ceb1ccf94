"""The descriptor of an algorithm: everything that the rest of the program asks about it.

This module and the descriptors import neither JAX nor Haiku nor NumPy, because the settings tree is
built from them. Each descriptor imports its networks inside the functions that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from rlcar.errors import ConfigError
from rlcar.settings.section import Section
from rlcar.types import Learner, Policy, Spec

if TYPE_CHECKING:
    from rlcar.agents.dreams import DreamSupport
    from rlcar.agents.numpy_network import Arrays, NumpyNetwork, NumpyPolicyParts

Settings = TypeVar("Settings", bound=Section)
Tree = dict[str, Any]  # a part of the settings tree, as plain dictionaries
Shapes = dict[str, tuple[int, ...]]


class Agent(NamedTuple):
    """The parts of an algorithm that a training loop runs."""

    policy: Policy
    learner: Learner


class AgentParts(NamedTuple, Generic[Settings]):
    """The functions that build an algorithm's agent."""

    make_policy: Callable[[Settings, Spec], Policy]
    make_learner: Callable[[Settings, Spec], Learner]


@dataclass(frozen=True, kw_only=True)
class Algorithm(Generic[Settings]):
    """Describes one algorithm; `rlcar/agents/__init__.py` lists them all.

    The name is also the name of its section in the settings tree. Checkpoints and published
    versions hold it, so it must not change.
    """

    name: str
    settings: type[Settings]
    # Changes to the settings tree, by the name of the preset. Each preset of an algorithm that is
    # not the default has to set `algorithm`.
    presets: Mapping[str, Tree]
    # The preset that is used if only the algorithm is chosen.
    default_preset: str
    # The presets for grand-prix worlds and for Gymnasium; None means the default preset.
    grand_prix_preset: str | None = None
    gymnasium_preset: str | None = None
    # The presets for single environments of Gymnasium, by their id.
    environment_presets: Mapping[str, str] = field(default_factory=dict)
    # The changes of `--mode test` to the algorithm's section.
    test_mode: Tree = field(default_factory=dict)
    # The setting that a rollback after a NaN halves, relative to the algorithm's section.
    learning_rate: str = "learning_rate"
    # An on-policy learner uses each block once, while it is the newest. Its replay holds one block.
    is_on_policy: bool = False
    # Whether it learns from a data set of recorded episodes without driving; whether it drives.
    learns_offline: bool = False
    learns_online: bool = True
    # Changes to every preset for learning from recorded data, and for continuing such a training
    # by driving.
    offline: Tree = field(default_factory=dict)
    fine_tuning: Tree = field(default_factory=dict)
    supports_discrete_actions: bool = False
    supports_images: bool = False
    # The sides of the square images that its networks can process; empty means any.
    image_sizes_px: tuple[int, ...] = ()
    # Whether the policy with these settings remembers earlier observations. Without memory it sees
    # several of the newest images at once.
    has_memory: Callable[[Settings], bool] = lambda settings: False
    # The policy's arrays contain `moments.*`, with which it normalises observations.
    normalises_observations: bool = False

    load_agent: Callable[[], AgentParts[Settings]]
    load_numpy_policy: Callable[[], NumpyPolicyParts[Settings]]
    # Only for algorithms whose world model can predict further steps.
    load_dream_support: Callable[[], DreamSupport[Settings]] | None = None

    @property
    def learning_rate_name(self) -> str:
        """The dotted name of the learning rate in the settings tree."""
        return f"{self.name}.{self.learning_rate}"

    def make_agent(self, settings: Settings, spec: Spec) -> Agent:
        """Builds policy and learner for an environment that the algorithm supports."""
        parts = self.load_agent()
        agent = Agent(parts.make_policy(settings, spec), parts.make_learner(settings, spec))
        assert agent.learner.is_on_policy == self.is_on_policy, self.name
        return agent

    def make_numpy_network(self, settings: Settings, arrays: Arrays) -> NumpyNetwork:
        """Builds the policy without exploration, in NumPy, for continuous actions."""
        return self.load_numpy_policy().make_numpy_network(settings, arrays)

    def array_shapes(self, settings: Settings, observation_size: int, action_size: int) -> Shapes:
        """Returns the shape of each array that acting needs."""
        return self.load_numpy_policy().array_shapes(settings, observation_size, action_size)

    def supports(self, spec: Spec) -> bool:
        """Returns whether the algorithm can learn from such observations and actions."""
        has_actions = self.supports_discrete_actions or not spec.is_discrete
        return has_actions and (spec.image_shape is None or self._sees(spec.image_shape[0]))

    def _sees(self, size_px: int) -> bool:
        return self.supports_images and size_px in (self.image_sizes_px or (size_px,))


def require_support(
    algorithm: Algorithm[Any], spec: Spec, all_algorithms: Mapping[str, Algorithm[Any]]
) -> None:
    """Raises ConfigError for an unsupported environment; names the algorithms that support it."""
    if algorithm.supports(spec):
        return
    able = " or ".join(name for name, other in all_algorithms.items() if other.supports(spec))
    if spec.image_shape is not None and not algorithm.supports_images:
        problem = f"the environment's observations are images, which {algorithm.name} cannot use"
    elif spec.image_shape is not None and spec.image_shape[0] not in algorithm.image_sizes_px:
        sizes = ", ".join(map(str, algorithm.image_sizes_px))
        raise ConfigError(
            f"environment.image_size_px = {spec.image_shape[0]}: {algorithm.name} processes images "
            f"of {sizes} pixels alone; choose one of these sizes"
        )
    else:
        problem = f"{algorithm.name} cannot choose among discrete actions"
    raise ConfigError(f"{problem}: train with --algorithm {able}")
