import numpy as np

from rlcar.evaluation.off_policy.support import find_outside, make_support, share_by_bin

EPISODES, STEPS = 40, 50


def recorded(seed: int = 0) -> tuple[np.ndarray, ...]:
    """A state that follows the action: two drivers, who stay near 0 and go up to 1."""
    random = np.random.default_rng(seed)
    state = np.zeros((EPISODES, STEPS + 1, 1), np.float32)
    action = np.zeros((EPISODES, STEPS, 1), np.float32)
    for episode in range(EPISODES):
        driver = episode % 2
        for step in range(STEPS):
            now = state[episode, step, 0]
            action[episode, step] = (driver - now) * 0.5 + 0.1 * random.normal()
            state[episode, step + 1] = now + 0.3 * action[episode, step]
    bounds = np.arange(EPISODES + 1) * STEPS
    flat = (array.reshape(-1, 1) for array in (state[:, :-1], state[:, 1:], action))
    return (*flat, bounds)


STATE, FOLLOWING, ACTION, BOUNDS = recorded()


def share_outside(policy) -> float:
    support = make_support(STATE, FOLLOWING, ACTION, BOUNDS, np.arange(32, 40))
    is_terminal = np.zeros(len(STATE), bool)
    return find_outside(
        support, ACTION, policy(STATE), policy(FOLLOWING), is_terminal, discount=0.95
    ).on_path


def test_each_driver_of_a_mixture_is_inside_on_its_own_path():
    """The driver that stays near 0 would act differently where only the other one has been."""
    assert share_outside(lambda state: (0.0 - state) * 0.5) < 0.02
    assert share_outside(lambda state: (1.0 - state) * 0.5) < 0.02


def test_actions_that_nobody_took_are_outside():
    assert share_outside(lambda state: np.full_like(state, -1.0)) > 0.9
    assert share_outside(lambda state: np.full_like(state, 1.0)) > 0.5


def test_recorded_actions_are_inside_as_often_as_the_calibration_says():
    support = make_support(STATE, FOLLOWING, ACTION, BOUNDS, np.arange(32, 40))
    following = np.roll(ACTION, -1, axis=0)
    is_terminal = np.zeros(len(STATE), bool)
    found = find_outside(support, ACTION, ACTION, following, is_terminal, discount=0.95)
    assert found.is_outside.mean() <= 0.03
    assert found.on_path <= 0.03


def test_a_walk_ends_with_its_episode():
    """After a terminal first step there is nothing that could be outside."""
    support = make_support(STATE, FOLLOWING, ACTION, BOUNDS, np.arange(32, 40))
    chosen = np.full_like(ACTION, -1.0)
    chosen[BOUNDS[:-1]] = ACTION[BOUNDS[:-1]]
    everything_ends = np.ones(len(STATE), bool)
    found = find_outside(support, ACTION, chosen, chosen, everything_ends, discount=0.95)
    assert found.on_path == 0.0


def test_a_discount_of_0_sees_the_first_action_alone():
    support = make_support(STATE, FOLLOWING, ACTION, BOUNDS, np.arange(32, 40))
    chosen = np.full_like(ACTION, -1.0)
    chosen[BOUNDS[:-1]] = ACTION[BOUNDS[:-1]]
    is_terminal = np.zeros(len(STATE), bool)
    assert find_outside(support, ACTION, chosen, chosen, is_terminal, discount=0.0).on_path == 0.0


def test_shares_by_bin_by_hand():
    shares = share_by_bin(
        np.array([0.1, 0.2, 0.6, 1.0]), np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.0, 1.0, 1.0])
    )
    assert shares == [0.5, 1.0]
    assert np.isnan(share_by_bin(np.array([0.1]), np.array([0.0, 0.5, 1.0]), np.ones(1))[1])
