"""The vocabulary: what travels between simulator, replay, learner and policy.

Axes, everywhere: `N` cars, `B` batch, `T` time, `H` imagined time, `R` rays, `S` latent groups,
`K` classes, `D` recurrent units, `O` observation size, `A` action size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

Array = Any  # np.ndarray on the host, jax.Array inside a jit
Params = Any  # a pytree of arrays
Metrics = dict[str, Any]  # named `who/what_unit`, scalars


class Spec(NamedTuple):
    """What an agent knows of its environment."""

    observation_size: int
    action_size: int
    is_discrete: bool = False  # an action is then one-hot [A], else each entry is in [-1, 1]
    image_shape: tuple[int, int, int] | None = None  # [height, width, channels] uint8, if any


class TimeStep(NamedTuple):
    """What an environment says after each action (or after a reset).

    An episode's last observation is a step of its own (`is_last`); the step that follows it ignores
    the action and starts the next episode (`is_first`, reward 0). So no observation is ever lost.
    """

    observation: Array  # [N, O] float32
    reward: Array  # [N] float32, for the action that led here
    is_first: Array  # [N] bool
    is_last: Array  # [N] bool, the episode ended: crash, finish or time-out
    is_terminal: Array  # [N] bool, it ended by a crash or a finish: no future reward exists
    image: Array = None  # [N, *image_shape] uint8; None where the environment has none


class Trajectory(NamedTuple):
    """T consecutive steps of N cars; the unit that travels from a simulator to the replay."""

    observation: Array  # [T, N, O] float32
    previous_action: Array  # [T, N, A] float32, what led to this step; ignored where is_first
    reward: Array  # [T, N] float32
    is_first: Array  # [T, N] bool
    is_last: Array  # [T, N] bool
    is_terminal: Array  # [T, N] bool
    weights_version: Array  # [T, N] int32, of the policy that chose `previous_action`
    image: Array = None  # [T, N, *image_shape] uint8
    carry: Array = None  # [T, N, carry_size] float32, the policy's before this step


class Batch(NamedTuple):
    """B windows of T consecutive steps out of the replay."""

    observation: Array  # [B, T, O] float32
    previous_action: Array  # [B, T, A] float32
    reward: Array  # [B, T] float32
    is_first: Array  # [B, T] bool
    is_last: Array  # [B, T] bool
    is_terminal: Array  # [B, T] bool
    image: Array = None  # [B, T, *image_shape] uint8
    carry: Array = None  # [B, T, carry_size] float32


class Weights(NamedTuple):
    """The policy's part of the parameters; the learner counts `version` up."""

    version: int
    params: Params


class Policy(NamedTuple):
    """Chooses actions; nothing but pure functions of `params`.

    `initial(number_of_cars)` -> carry;
    `act(params, carry, time_step, key, explore)` -> (carry, action [N, A]), which the environment
    clips to [-1, 1]; the key is consumed, `explore` is a static bool: False takes the
    distribution's mode. A driver that `sees_cars` is a yardstick that no car could be: its `act`
    gets the simulator's view as well. Where learning has to know what the cars remembered when they
    acted, the carry is an array `[N, carry_size]`, which goes into the trajectory. Until its first
    train step one that `starts_by_chance` explores with evenly drawn actions.
    """

    initial: Callable[[int], Any]
    act: Callable[..., tuple[Any, Array]]
    sees_cars: bool = False
    carry_size: int = 0
    starts_by_chance: bool = False


class Learner(NamedTuple):
    """Turns batches into better parameters; its whole state is one pytree, its RNG key included.

    `init(seed)` -> state; `update(state, batches)` -> (state, metrics): one train step for each
    batch of `batches` (leaves `[updates, B, T, ...]`), metrics averaged over them;
    `policy_params(state)` -> what `Policy.act` needs, and nothing more. One that is `is_on_policy`
    learns from each block once, whole, while it is the newest: B is then its cars.
    """

    init: Callable[[int], Any]
    update: Callable[[Any, Batch], tuple[Any, Metrics]]
    policy_params: Callable[[Any], Params]
    is_on_policy: bool = False


class Evaluation(NamedTuple):
    """Named figures of a policy, and the one by which the best policy is chosen."""

    metrics: dict[str, float]  # evaluation/…
    cost: float  # Lower is better.
