"""Films one unseen episode of a compiled environment that can be drawn."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from rlcar.agents import make_agent
from rlcar.config import Config, load_config
from rlcar.envs.compiled import COMPILED, compiled_settings
from rlcar.errors import UserError
from rlcar.evaluation.episodes import TEST_INDEX
from rlcar.evaluation.run_report import load_policy
from rlcar.runs.run import require_run
from rlcar.viewing.render import write_film


def is_compiled_run(path: Path) -> bool:
    """Whether a run is one of a compiled environment."""
    return load_config(require_run(path) / "config.json").environment.id in COMPILED


def film_episode(out: Path, path: Path, number: int) -> str:
    """Films the unseen episode `number` with a run's policy; returns how it ended.

    Raises UserError for an environment that cannot be drawn and for an unknown format of `out`.
    """
    folder = require_run(path)
    config = load_config(folder / "config.json")
    descriptor = COMPILED[config.environment.id]
    if descriptor.make_renderer is None:
        raise UserError(f"{folder} is a run of {descriptor.id}, which cannot be drawn")
    result: list[str] = []
    write_film(out, _frames(config, folder, path, number, result))
    return f"{folder.name}: {result[0]}"


def _frames(
    config: Config, folder: Path, path: Path, number: int, result: list[str]
) -> Iterator[np.ndarray]:
    """Yields the pictures of the episode, and appends how it ended to `result`."""
    descriptor = COMPILED[config.environment.id]
    settings = compiled_settings(config.environment)
    environment = descriptor.make(settings)
    assert descriptor.make_renderer is not None
    renderer = descriptor.make_renderer(settings)
    agent = make_agent(config, environment.spec)
    _, params = load_policy(folder, path, agent, config.seed)
    act, step = jax.jit(agent.policy.act, static_argnums=4), jax.jit(environment.step)
    state, time_step = environment.reset(np.array([TEST_INDEX + number], np.int32), 0)
    carry, key = agent.policy.initial(1), jax.random.PRNGKey(0)
    yield renderer.rgb_array(state, np.zeros(environment.spec.action_size, np.float32))
    reward, steps = 0.0, 0
    while not time_step.is_last[0]:
        key, act_key = jax.random.split(key)
        carry, action = act(params, carry, time_step, act_key, False)
        state, time_step, end = step(state, action)
        reward, steps = reward + float(time_step.reward[0]), steps + 1
        yield renderer.rgb_array(state, np.asarray(action[0]))
    reason = environment.reasons[int(end.reason[0])]
    result.append(f"{reason} after {steps} steps, reward {reward:.1f}")
