"""Without memory the present observation is all that counts, in training as in driving."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.dreamer.learner import make_learner, policy_part
from rlcar.agents.dreamer.policy import make_policy
from rlcar.agents.dreamer.world_model import make_world_model, observe
from rlcar.types import TimeStep
from tests.agents.dreamer.tiny import SPEC, one_episode, quick_jit

KEY = jax.random.PRNGKey(1)


@pytest.fixture(scope="module", params=[True, False], ids=["memory", "no memory"])
def config(request, tiny_config):
    model = tiny_config.dreamer.world_model.model_copy(update={"has_memory": request.param})
    return tiny_config.dreamer.model_copy(update={"world_model": model})


def test_a_belief_depends_on_the_past_only_with_memory(config):
    model = make_world_model(config.world_model, SPEC)
    params = quick_jit(model.init)(jax.random.PRNGKey(0))
    filtered = quick_jit(lambda batch: observe(model, config.world_model, params, batch, KEY))
    batch = one_episode(32, 5)  # many: a latent often stays what it was
    other = batch._replace(observation=batch.observation.copy())
    other.observation[:, 1] += 5.0
    one, two = filtered(batch), filtered(other)
    is_same = bool(jnp.array_equal(one.posterior[2], two.posterior[2]))
    assert is_same is not config.world_model.has_memory
    # What is foreseen follows from the step before either way: dreams begin there.
    assert not jnp.array_equal(one.prior[2], two.prior[2])


def test_a_policy_acts_on_the_past_only_with_memory(config):
    policy = make_policy(config, SPEC)
    params = policy_part(quick_jit(make_learner(config, SPEC).init)(0).params)
    act = quick_jit(policy.act, static_argnums=4)

    def drive(first):
        """Returns what the last observation, the same in both drives, is taken for."""
        carry, no = policy.initial(1), np.zeros(1, bool)
        for value, is_first in ((first, ~no), (0.3, no)):
            observation = np.full((1, SPEC.observation_size), value, np.float32)
            now = TimeStep(observation, np.zeros(1), is_first, no, no)
            carry, _ = act(params, carry, now, KEY, False)
        return np.concatenate([carry.state.recurrent, carry.state.latent], axis=-1)

    is_same = np.allclose(drive(0.0), drive(1.0))
    assert is_same is not config.world_model.has_memory
