"""The interface of an algorithm's world model, for pictures of its predictions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

from rlcar.agents.algorithm import Settings
from rlcar.types import Array, Params, Spec


class Dream(NamedTuple):
    """Predictions of H steps of N cars, made without any observation of these steps."""

    observation: Array  # [H, N, O], in the observation's own units
    reward: Array  # [H, N]
    continues: Array  # [H, N] probability that the episode continues, 0..1
    action: Array  # [H, N, A]


class Dreamer(NamedTuple):
    """Two ways to predict the steps that follow a belief; jitted.

    `follow(params, belief, action [H, N, A], key) -> Dream` under given actions;
    `imagine(params, belief, length, key) -> Dream` under the policy's own. `params` are those of
    `DreamSupport.params_of`. Latent states are sampled with `key`, which is consumed; without one
    (None) they are the most likely ones. `length` is static.
    """

    follow: Callable[..., Dream]
    imagine: Callable[..., Dream]


@dataclass(frozen=True)
class DreamSupport(Generic[Settings]):
    """Access to the world model of an algorithm, for `rlcar dream` and the live page."""

    make_dreamer: Callable[[Settings, Spec], Dreamer]
    # (the learner's state) -> parameters of the world model and the actor, decoder included.
    params_of: Callable[[Any], Params]
    # (these parameters) -> what `Policy.act` needs.
    policy_params_of: Callable[[Params], Params]
    # (the policy's carry of N cars) -> the belief from which a dream starts.
    belief_of: Callable[[Any], Any]
    # (the policy's carry, action [N, A]) -> the carry if this action was taken instead.
    with_action: Callable[[Any, Array], Any]
    # (settings, the policy's carry) -> one-hot latent state [N, S, K].
    latent_of: Callable[[Settings, Any], Array]
