"""Evaluates a served policy over the network: it acts in episodes of a Gymnasium environment."""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from rlcar.config import EnvironmentConfig, parse_config
from rlcar.envs.faults import successes_of
from rlcar.envs.single import SingleEnvironment, SingleStep
from rlcar.errors import UserError
from rlcar.types import Spec
from serve.api.schema import MAX_CARS
from serve.client.client import DriveClient
from serve.client.evaluation import Reports, connection_figures, print_figures, print_table
from serve.client.laps import Lap

DEFAULT_EPISODES = 16
_MOST_STEPS = 27_000  # some environments never end
_FIRST_SEED = 3_000_000  # neither training, evaluation nor the gates use seeds from here on


def drive_episodes(
    client: DriveClient,
    environment: EnvironmentConfig | None = None,
    *,
    episodes: int = DEFAULT_EPISODES,
    seed: int = 0,
    on_share: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """Lets a served policy act in episodes side by side; returns rewards, successes and latencies.

    Without `environment` it is that of the version's training. Each episode is reported for a
    rollout, and its rewards and its end for a server that records. Raises UserError if the version
    cannot act in the environment.
    """
    if not 1 <= episodes <= MAX_CARS:
        raise UserError(f"--episodes {episodes}: a request holds 1 to {MAX_CARS} of them")
    model = client.check()
    environment = environment or trained_environment(model)
    if not environment.id:
        raise UserError(
            f"version {model['version']} drives in the race: leave out --env, or name one"
        )
    with contextlib.ExitStack() as stack:
        environments = []
        for index in range(episodes):
            one = SingleEnvironment(environment, _FIRST_SEED + seed * MAX_CARS + index)
            stack.callback(one.close)
            require_fit(model, one.spec, environment.id)
            environments.append(one)
        drive = _Drive(client, environments)
        drive.run(on_share)
    return {
        "model_version": model["version"],
        "environment": environment.id,
        **drive.figures(),
        **connection_figures(client),
    }


def trained_environment(model: Mapping[str, Any]) -> EnvironmentConfig:
    """Returns the environment that a served version was trained in; its id is empty for the race.

    `model` is what `DriveClient.check` returns.
    """
    return parse_config(model["config"]).environment


def require_fit(model: Mapping[str, Any], spec: Spec, name: str) -> None:
    """Raises UserError unless a version takes the observations and gives the actions of `spec`."""
    sizes = len(model["observation"]), len(model["action"])
    if sizes == spec[:2] and not spec.is_discrete and spec.image_shape is None:
        return
    kind = "discrete actions" if spec.is_discrete else "numbers to act with"
    images = " and images" if spec.image_shape is not None else ""
    trained = parse_config(model["config"]).world_label
    raise UserError(
        f"version {model['version']} was trained in {trained}: it observes {sizes[0]} numbers and "
        f"acts with {sizes[1]}, and {name} has {spec.observation_size} numbers{images} to observe "
        f"and {spec.action_size} {kind}: name the environment of its training, or serve another "
        "version"
    )


def print_episodes(result: Mapping[str, Any], console: Console) -> None:
    """Prints the result as a table, and then its figures one per line."""
    rate, episodes = result["success_rate"], result["episodes"]
    columns = {
        "success": f"not known of {episodes}"
        if rate is None
        else f"{100 * rate:.1f} % of {episodes}",
        "reward": f"{result['mean_reward']:.2f}",
        "steps": f"{result['mean_steps']:.1f}",
    }
    title = f"version {result['model_version']} in {result['environment']}"
    print_table(title, columns, result, console)
    if result["reasons"]:
        ends = ", ".join(f"{reason} {count}" for reason, count in result["reasons"].items())
        console.print(f"ends of episodes: {ends}", highlight=False)
    print_figures(result, console)


class _Drive:
    """One episode of each environment; those that have ended wait for the others."""

    def __init__(self, client: DriveClient, environments: Sequence[SingleEnvironment]):
        self._client, self._environments = client, environments
        self._reports = Reports(client)
        number = len(environments)
        self._reward, self._steps = np.zeros(number), np.zeros(number, np.int64)
        self._last: list[SingleStep | None] = [None] * number  # of each episode that has ended

    def run(self, on_share: Callable[[float], None]) -> None:
        """Acts until every episode has ended; the server learns of each end."""
        number = len(self._environments)
        observation = np.stack([environment.reset() for environment in self._environments])
        is_first = np.ones(number, bool)
        reward, is_terminal, is_truncated = np.zeros(number), is_first & False, is_first & False
        for _ in range(_MOST_STEPS):
            reply = self._client.act(
                observation,
                is_first,
                reward=reward,
                terminated=is_terminal,
                truncated=is_truncated,
            )
            self._report(is_terminal | is_truncated)
            if all(last is not None for last in self._last):
                return
            # Of an episode that has ended, the observation is sent again as that of a new one,
            # because a session always has the same number of cars.
            is_first = np.array([last is not None for last in self._last])
            reward = np.zeros(number)
            is_terminal, is_truncated = np.zeros(number, bool), np.zeros(number, bool)
            for index in np.flatnonzero(~is_first).tolist():
                step = self._environments[index].step(reply.action[index])
                observation[index], reward[index] = step.observation, step.reward
                is_terminal[index], is_truncated[index] = step.is_terminal, step.is_truncated
                self._reward[index] += step.reward
                self._steps[index] += 1
                if step.is_last:
                    self._last[index] = step
            on_share(float(np.mean([last is not None for last in self._last])))

    def figures(self) -> dict[str, Any]:
        """Returns what became of the episodes."""
        has_ended = np.array([last is not None for last in self._last])
        said = [None if last is None else last.is_success for last in self._last]
        successes = successes_of(said, has_ended)
        reasons = Counter(last.reason for last in self._last if last is not None and last.reason)
        return {
            "episodes": len(self._environments),
            "ended": int(has_ended.sum()),
            "success_rate": None if successes is None else float(successes.mean()),
            "mean_reward": float(self._reward.mean()),
            "mean_steps": float(self._steps.mean()),
            "reasons": dict(reasons.most_common()),
            **self._reports.figures("episodes"),
        }

    def _report(self, has_ended: np.ndarray) -> None:
        """Reports the episodes whose last observations were sent with this request."""
        laps = []
        for index in np.flatnonzero(has_ended).tolist():
            last = self._last[index]
            is_success = None if last is None else last.is_success
            laps.append(Lap(float(self._reward[index]), is_success, car=index))
        self._reports.add(laps)
