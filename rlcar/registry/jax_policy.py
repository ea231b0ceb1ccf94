"""A version of the registry as a policy in JAX, for programs that drive many cars at once."""

import functools

import jax
import jax.numpy as jnp

from rlcar.agents import make_agent
from rlcar.config import Config, parse_config
from rlcar.errors import RegistryError
from rlcar.evaluation.environment import spec_of
from rlcar.registry.version import Model
from rlcar.storage.arrays import first_difference, leaf_name
from rlcar.types import Params, Policy


def jax_policy(model: Model) -> tuple[Config, Policy, Params]:
    """Returns a version's config, its policy and the parameters.

    Raises RegistryError if the arrays do not fit the config.
    """
    config = parse_config(model.version.metadata["config"])
    agent = make_agent(config, spec_of(config))
    state = jax.eval_shape(functools.partial(agent.learner.init, config.seed))
    leaves, structure = jax.tree_util.tree_flatten_with_path(agent.learner.policy_params(state))
    wanted = {leaf_name(path): leaf for path, leaf in leaves}
    problem = first_difference(wanted, model.arrays)
    if problem:
        raise RegistryError(f"version {model.version.number} does not fit its config: {problem}")
    arrays = [jnp.asarray(model.arrays[name]) for name in wanted]
    return config, agent.policy, jax.tree.unflatten(structure, arrays)
