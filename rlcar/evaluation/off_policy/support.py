"""Checks whether the data contains actions such as those that a policy chooses."""

from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

# An action is inside the support if it is as near to an action of a similar recorded state as this
# share of the actions of held-out episodes is.
_CALIBRATION = 0.98
_NEIGHBOURS = 30
_MOST_NODES, _MOST_QUERIES = 30_000, 4_000
_WALKS = 256


class Support(NamedTuple):
    """Recorded transitions (nodes), and for states of interest the K nodes in similar states."""

    node: np.ndarray  # [N] rows of the data
    start: np.ndarray  # [W] rows that begin an episode
    start_neighbour: np.ndarray  # [W, K] nodes whose state is similar to that start
    next_neighbour: np.ndarray  # [N, K] nodes whose state is similar to that after the node
    query: np.ndarray  # [Q] rows of held-out episodes
    query_neighbour: np.ndarray  # [Q, K]
    limit: float  # the calibrated distance of actions


class Outside(NamedTuple):
    """How often a policy leaves the support."""

    on_path: float  # discounted share of its actions on its own path through the data
    is_outside: np.ndarray  # [Q] bool, in the held-out states


def make_support(
    state: np.ndarray,
    next_state: np.ndarray,
    action: np.ndarray,
    bounds: np.ndarray,
    held_out: np.ndarray,
    *,
    seed: int = 0,
) -> Support:
    """Finds similar states among `[M, S]`, and calibrates the distance of actions.

    `bounds [E + 1]` are the first rows of the episodes, and `held_out` are indices of episodes.
    States are compared after division by their standard deviation. The limit is the distance that
    98 % of the held-out actions stay within, so it needs no unit and no tuning.
    """
    random = np.random.default_rng(seed)
    episode = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    is_held_out = np.isin(episode, held_out)
    node = _sample(random, np.flatnonzero(~is_held_out), _MOST_NODES)
    query = _sample(random, np.flatnonzero(is_held_out), _MOST_QUERIES)
    start = random.choice(bounds[:-1], _WALKS)
    scale = state[node].std(axis=0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    tree = KDTree(state[node] / scale)
    count = min(_NEIGHBOURS, len(node))

    def similar(states: np.ndarray) -> np.ndarray:
        return tree.query(states / scale, k=count)[1].reshape(len(states), count)

    support = Support(
        node,
        start,
        similar(state[start]),
        similar(next_state[node]),
        query,
        similar(state[query]),
        0.0,
    )
    distance = _distances(support, action, support.query_neighbour, action[query]).min(axis=1)
    return support._replace(limit=float(np.quantile(distance, _CALIBRATION)))


def find_outside(
    support: Support,
    action: np.ndarray,
    policy_action: np.ndarray,
    policy_next_action: np.ndarray,
    is_terminal: np.ndarray,
    *,
    discount: float,
    seed: int = 0,
) -> Outside:
    """Returns where a policy leaves the support; all arrays are rows of the data, `[M, …]`.

    The states in which a policy would be are not those of the data: of three recorded drivers it
    may resemble one. Therefore walks follow the policy through the data. A walk goes on from a
    recorded transition in a similar state with a similar action, as long as there is one.
    """
    limit = support.limit + 1e-6  # a rounding error must not turn a repeated action into a new one
    random = np.random.default_rng(seed)
    first, is_first_outside = _steps(
        support, action, support.start_neighbour, policy_action[support.start], limit, random
    )
    following, is_outside = _steps(
        support, action, support.next_neighbour, policy_next_action[support.node], limit, random
    )
    ends = is_terminal[support.node]
    is_walking = np.ones(len(first), bool)
    place = first[:, 0]
    found, total, weight = float(is_first_outside.sum()), float(len(first)), 1.0
    # The weight of later steps is below 1 % of the first one.
    steps = int(np.ceil(np.log(0.01) / np.log(discount))) if discount > 0.0 else 0
    for _ in range(steps):
        is_walking &= ~ends[place]
        weight *= discount
        found += weight * (is_outside[place] & is_walking).sum()
        total += weight * is_walking.sum()
        place = following[place, random.integers(following.shape[1], size=len(place))]
    distance = _distances(
        support, action, support.query_neighbour, policy_action[support.query]
    ).min(axis=1)
    return Outside(float(found / total), distance > limit)


def _steps(
    support: Support,
    action: np.ndarray,
    neighbour: np.ndarray,
    chosen: np.ndarray,
    limit: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns nodes that continue from each state, and whether the chosen action is outside.

    The nodes `[R, C]` are random ones with an action within the limit, or the nearest one.
    """
    distance = _distances(support, action, neighbour, chosen)
    nearest = distance.min(axis=1, keepdims=True)
    is_near = distance <= np.maximum(limit, nearest)
    # Random order, near ones first.
    order = np.argsort(np.where(is_near, 0.0, 2.0) + random.random(distance.shape), axis=1)
    count = is_near.sum(axis=1)
    pick = (random.random((len(count), 4)) * count[:, None]).astype(int)
    node = np.take_along_axis(neighbour, np.take_along_axis(order, pick, axis=1), axis=1)
    is_outside = nearest[:, 0] > limit
    return node, is_outside


def _distances(
    support: Support, action: np.ndarray, neighbour: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """Returns the distances `[R, K]` of chosen actions `[R, A]` to those of the neighbours."""
    node_action = action[support.node]
    total = np.zeros(neighbour.shape)
    for index in range(action.shape[1]):
        total += np.square(node_action[neighbour, index] - chosen[:, index, None])
    return np.sqrt(total)


def share_by_bin(value: np.ndarray, edges: np.ndarray, is_outside: np.ndarray) -> list[float]:
    """Returns the share of actions outside in each bin of a value; NaN for an empty bin."""
    index = np.clip(np.searchsorted(edges, value, side="right") - 1, 0, len(edges) - 2)
    count = np.bincount(index, minlength=len(edges) - 1)
    found = np.bincount(index, weights=is_outside, minlength=len(edges) - 1)
    with np.errstate(invalid="ignore"):
        return [float(share) for share in found / count]


def _sample(random: np.random.Generator, rows: np.ndarray, most: int) -> np.ndarray:
    return rows if len(rows) <= most else random.choice(rows, most, replace=False)
