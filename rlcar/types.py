"""The data types that travel between simulator, replay buffer, learner and policy.

Every shape in this project is written with these axis letters:

| Letter | Axis                                       |
| ------ | ------------------------------------------ |
| `N`    | cars, or other environments, side by side  |
| `T`    | time: consecutive env steps                |
| `B`    | batch                                      |
| `H`    | imagined time: steps of a world model      |
| `O`    | numbers of an observation                  |
| `A`    | numbers of an action                       |
| `R`    | rays of the distance sensor                |
| `S`    | groups of the discrete latent state        |
| `K`    | classes of each latent group               |
| `D`    | recurrent units                            |

The data flow in a circle:

    environment    ->  TimeStep [N, ...]  ->  Trajectory [T, N, ...]  ->  replay buffer
    replay buffer  ->  Batch [B, T, ...]  ->  Learner  ->  Weights  ->  Policy  ->  environment
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# `Any`, because one source serves both libraries and no type checker knows their common part.
Array = Any  # np.ndarray on the host, jax.Array on a device and inside `jax.jit`
Params = Any  # a pytree of arrays: the parameters of a policy or of a learner
Metrics = dict[str, Any]  # scalars by name, `who/what_unit`


class Spec(NamedTuple):
    """The interface of an environment: the sizes of its observations and actions."""

    observation_size: int  # O
    action_size: int  # A
    is_discrete: bool = False  # True: an action is one-hot [A]. False: each entry is in [-1, 1]
    image_shape: tuple[int, int, int] | None = None  # [height, width, channels]; None: no image


class TimeStep(NamedTuple):
    """What N environments return after an action or a reset.

    The last observation of an episode is a time step of its own (`is_last`). The next call ignores
    the action and returns the first time step of the next episode (`is_first`, reward 0).
    Therefore no observation is lost.
    """

    observation: Array  # [N, O] float32
    reward: Array  # [N] float32, for the action that led to this observation
    is_first: Array  # [N] bool, the first time step of an episode
    is_last: Array  # [N] bool, the last one: crash, finish or time limit
    is_terminal: Array  # [N] bool, ended by a crash or a finish: no reward can follow
    image: Array = None  # [N, height, width, channels] uint8; None without images


class EpisodeEnd(NamedTuple):
    """How the episodes ended that end in this step; other entries have no meaning."""

    reason: Array  # [N] int32, index into `CompiledEnvironment.reasons`
    is_success: Array  # [N] bool, derived from the reason alone
    figures: dict[str, Array]  # [N] float32 each, named with units, such as `distance_m`


class CompiledEnvironment(NamedTuple):
    """An environment as pure functions that JAX compiles, with the conventions of `TimeStep`.

    `reset(index [N] int32, seed [] or [N])` -> (state, time step). Index and seed determine all
    episodes of an environment.

    `step(state, action [N, A])` -> (state, time step, how episodes ended). Actions are clipped to
    [-1, 1]. The call after `is_last` ignores the action and returns the first time step of the next
    episode.

    A state is a pytree of arrays whose leading axis is N.
    """

    spec: Spec
    reasons: tuple[str, ...]  # how an episode can end, for example ("landed", "crashed")
    reset: Callable[[Array, Array], tuple[Any, TimeStep]]
    step: Callable[[Any, Array], tuple[Any, TimeStep, EpisodeEnd]]


class Trajectory(NamedTuple):
    """T consecutive time steps of N cars: what a simulator sends to the replay buffer."""

    observation: Array  # [T, N, O] float32
    previous_action: Array  # [T, N, A] float32, led to this step; meaningless where is_first
    reward: Array  # [T, N] float32
    is_first: Array  # [T, N] bool
    is_last: Array  # [T, N] bool
    is_terminal: Array  # [T, N] bool
    weights_version: Array  # [T, N] int32, of the policy that acted in this block
    image: Array = None  # [T, N, height, width, channels] uint8; None without images
    carry: Array = None  # [T, N, carry_size] float32, the policy's memory before this step


class Batch(NamedTuple):
    """B windows of T consecutive time steps from the replay buffer."""

    observation: Array  # [B, T, O] float32
    previous_action: Array  # [B, T, A] float32
    reward: Array  # [B, T] float32
    is_first: Array  # [B, T] bool
    is_last: Array  # [B, T] bool
    is_terminal: Array  # [B, T] bool
    image: Array = None  # [B, T, height, width, channels] uint8; None without images
    carry: Array = None  # [B, T, carry_size] float32


class Weights(NamedTuple):
    """The parameters that a policy needs to act, with their version."""

    version: int  # counts the learner's train steps; 0 is untrained
    params: Params


class Policy(NamedTuple):
    """Chooses actions. All functions are pure; the policy's memory is the `carry`.

    `initial(number_of_cars)` -> carry, at the start of the first episode.

    `act(params, carry, time_step, key, explore)` -> (carry, action `[N, A]`). The environment clips
    actions to [-1, 1]. The key is consumed. `explore` is a static bool: True samples the action
    distribution, False takes its mode.
    """

    initial: Callable[[int], Any]
    act: Callable[..., tuple[Any, Array]]
    # True only for hand-written baselines that use more than the sensors: `act` then gets the
    # simulator's `CarView` as one more argument.
    uses_car_view: bool = False
    # Above 0 if the learner needs the carry: it is then an array `[N, carry_size]`, and every
    # trajectory contains it.
    carry_size: int = 0
    # (carry, action `[N, A]`) -> carry: remembers another action than the policy's own as the last
    # one. None for a policy that remembers no actions. Recorded episodes are replayed with it.
    with_action: Callable[[Any, Array], Any] | None = None
    # True: exploration takes uniformly drawn actions until the first train step.
    starts_with_random_actions: bool = False


class Learner(NamedTuple):
    """Improves parameters from batches. Its whole state, random key included, is one pytree.

    `init(seed)` -> state.

    `update(state, batches)` -> (state, metrics). It makes one train step for each batch of
    `batches`, whose leaves are `[updates, B, T, ...]`, and averages the metrics over them.

    `policy_params(state)` -> the parameters that `Policy.act` needs, and nothing else.
    """

    init: Callable[[int], Any]
    update: Callable[[Any, Batch], tuple[Any, Metrics]]
    policy_params: Callable[[Any], Params]
    # True: the learner trains once on each new block as a whole, so that B is the number of cars.
    is_on_policy: bool = False
    # Only for learners that normalise observations by the moments of recorded data:
    # `with_moments(state, mean [O], variance [O], count [])` -> state.
    with_moments: Callable[[Any, Array, Array, Array], Any] | None = None
    # Only for learners that keep running statistics: `moments_of(state)` -> the statistics by name.
    # Each has a mean, a variance and a count; `observation` are those of the observations.
    moments_of: Callable[[Any], Mapping[str, Any]] | None = None


class Outcomes(NamedTuple):
    """How the episodes of an evaluation ended."""

    episodes: int
    successes: int | None  # None for an environment that does not say what a success is
    mean_reward: float  # of an episode


class Evaluation(NamedTuple):
    """The result of evaluating a policy."""

    metrics: dict[str, float]  # named evaluation/...
    # The best policy is the one with the lowest cost, or the newest one if costs are unknown.
    cost: float | None
    outcomes: Outcomes | None = None  # None if nothing was driven
