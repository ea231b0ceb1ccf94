"""The report of a compiled environment: unseen episodes, baselines, pictures and a film."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from rlcar.agents import Agent
from rlcar.config import Config
from rlcar.envs.compiled import COMPILED, compiled_settings
from rlcar.evaluation import episode_pictures
from rlcar.evaluation.episodes import TEST_INDEX, EpisodeResults, make_episodes, mean_figures
from rlcar.evaluation.statistics import wilson_interval
from rlcar.system.tables import make_table
from rlcar.types import CompiledEnvironment, Params, Policy

EPISODES = 256
_DEVIATIONS = 1.96  # of a normal distribution: 95 %
PICTURES = ("episodes.png", "ends.png", "learning_curve.png")


def report_episodes(
    config: Config,
    agent: Agent,
    params: Params,
    episodes: int,
    on_share: Callable[[float], None] = lambda share: None,
) -> tuple[dict[str, Any], EpisodeResults]:
    """Returns the report of a policy and of the baselines, and the episodes of the policy.

    All of them drive the same episodes, which neither training nor the choice of the best policy
    has seen.
    """
    descriptor = COMPILED[config.environment.id]
    settings = compiled_settings(config.environment)
    environment = descriptor.make(settings)
    policies = {name: make(settings) for name, make in descriptor.baselines.items()}
    policies["random"] = _random_policy(environment)
    view = descriptor.view
    own = make_episodes(environment, agent.policy, view)(params, episodes, TEST_INDEX)
    assert own is not None  # nothing stops it
    scores = {config.preset: score(environment, own)}
    for number, (name, policy) in enumerate(policies.items(), 1):
        on_share(number / (1 + len(policies)))
        driven = make_episodes(environment, policy)(None, episodes, TEST_INDEX)
        assert driven is not None
        scores[name] = score(environment, driven)
    report = {"environment": descriptor.id, "policy": config.preset, "episodes": episodes}
    return {**report, **scores[config.preset], "policies": scores}, own


def score(environment: CompiledEnvironment, results: EpisodeResults) -> dict[str, Any]:
    """Returns the figures of some episodes; those about the end are means over the successes."""
    episodes, successes = len(results.reward), int(results.is_success.sum())
    return {
        "success_rate": successes / episodes,
        "success_rate_interval": list(wilson_interval(successes, episodes, _DEVIATIONS)),
        "episode_reward": float(results.reward.mean()),
        "episode_steps": float(results.steps.mean()),
        **dict.fromkeys(results.figures),
        **mean_figures(results),
        "reasons": {
            reason: int((results.reason == index).sum())
            for index, reason in enumerate(environment.reasons)
        },
    }


def figures_of(config: Config) -> tuple[str, ...]:
    """Returns the names of the report's figures that are printed."""
    own = COMPILED[config.environment.id].figures
    return ("success_rate", "episode_reward", "episode_steps", *own)


def draw_report(
    folder: Path, config: Config, report: Mapping[str, Any], results: EpisodeResults
) -> None:
    """Draws how the episodes went over time, and where they ended."""
    descriptor = COMPILED[config.environment.id]
    rate = 100.0 * report["success_rate"]
    title = f"{descriptor.id}: {report['episodes']} unseen episodes, {rate:.1f} % successful"
    if results.view:
        episode_pictures.draw_views(folder / PICTURES[0], results, descriptor.step_s, title)
    if descriptor.end_place is not None:
        episode_pictures.draw_ends(folder / PICTURES[1], results, descriptor.end_place, title)


def print_table(report: Mapping[str, Any], console: Console) -> None:
    """Prints the policies under one another, the one under test first."""
    scores = report["policies"]
    first = next(iter(scores.values()))
    figures = [name for name, value in first.items() if not isinstance(value, list | dict)]
    columns = [name.replace("_", " ") for name in figures]
    table = make_table(
        "policy",
        *columns,
        right=tuple(columns),
        title=f"{report['episodes']} unseen episodes, figures of the end over the successes",
    )
    for name, values in scores.items():
        cells = ["-" if values[figure] is None else f"{values[figure]:.4g}" for figure in figures]
        table.add_row(name, *cells, style="bold" if name == report["policy"] else "")
    console.print(table)


def _random_policy(environment: CompiledEnvironment) -> Policy:
    """Returns a policy that draws each action from [-1, 1]."""
    size = environment.spec.action_size

    def act(params: Any, carry: Any, time_step: Any, key: Any, explore: bool) -> tuple[Any, Any]:
        del params, explore
        shape = (len(time_step.reward), size)
        return carry, jax.random.uniform(key, shape, minval=-1.0)

    return Policy(lambda number: jnp.zeros(number), act)
