"""Compares what a run's world model predicts with what happens: errors, a picture and a film."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track as progress_bar

from rlcar.agents import Agent, algorithm_of, make_agent
from rlcar.agents.dreams import Dream, Dreamer, DreamSupport
from rlcar.config import load_config
from rlcar.config.race import RaceConfig
from rlcar.errors import CheckpointError, UserError
from rlcar.evaluation.chosen_tracks import ChosenTracks
from rlcar.evaluation.json_file import write_json
from rlcar.evaluation.laps import track_seeds
from rlcar.runs.run import is_same_folder, require_race, require_run, writing
from rlcar.sim import SPEC, make_race
from rlcar.sim.sensors import RAYS
from rlcar.storage import checkpoint
from rlcar.system.console import make_console
from rlcar.track import make_pool, set_name
from rlcar.types import Array, Params
from rlcar.viewing import dream_pictures

_DEFAULT_SET = "validation"
_PREFIX_STEPS = 15  # observed before the first dream
_EVERY_STEPS = 10  # between the starts of two dreams
_DRIVE_STEPS = 320  # more than a lap of a good policy
_DRAWS = 8  # dreams from one belief, averaged to the model's expectation


class Driven(NamedTuple):
    """A drive of N cars over T steps, with the model's belief at each step."""

    observation: Array  # [T, N, O]
    reward: Array  # [T, N], of the step that led to the observation
    is_first: Array  # [T, N]
    is_last: Array  # [T, N]
    is_terminal: Array  # [T, N]
    action: Array  # [T, N, A], chosen from the observation
    belief: Any  # a tree with leaves [T, N, ...]


def dream_run(path: Path, tracks: ChosenTracks | str | None, horizon: int) -> dict[str, Any]:
    """Writes dream.json, dream.png and dream.gif into a run's folder; returns the report.

    The policy drives the chosen tracks, by default its own ones or those of validation. Every few
    steps the model predicts the next `horizon` steps from its belief and the actions that were
    really taken. Raises UserError for a run whose algorithm has no world model.
    """
    if not 1 <= horizon <= 200:
        raise UserError(f"--horizon {horizon}: a dream has 1 to 200 steps")
    folder = require_run(path)
    config = load_config(folder / "config.json")
    require_race(folder, config)
    load_dream_support = algorithm_of(config).load_dream_support
    if load_dream_support is None:
        raise UserError(f"{folder} trained {config.algorithm}, which has no world model to dream")
    support, agent = load_dream_support(), make_agent(config, SPEC)
    save, params = _load_params(folder, path, support, agent, config.seed)
    race, track_set = ChosenTracks.of(tracks).apply(config.race, _DEFAULT_SET)
    seeds = track_seeds(track_set, race.track)
    driven = jax.tree.map(np.asarray, _drive(race, support, agent, params, seeds))
    starts = np.arange(_PREFIX_STEPS, driven.reward.shape[0] - horizon, _EVERY_STEPS)
    dreamer = support.make_dreamer(config.algorithm_settings, SPEC)
    bar = progress_bar(starts, "dreaming", console=make_console(stderr=True), transient=True)
    dreams = [_dream(dreamer, params, driven, int(start), horizon) for start in bar]
    report = {
        **_errors(driven, dreams, starts, horizon),
        "horizon_steps": horizon,
        "track_set": set_name(track_set, race.track),
        "tracks": len(seeds),
        "prefix_steps": _PREFIX_STEPS,
        "draws": _DRAWS,
        "checkpoint": save.path.name,
        "checkpoint_env_steps": save.env_steps,
        "provenance": checkpoint.provenance(config.seed),
    }
    with writing(folder):
        dream_pictures.draw_errors(folder / "dream.png", report)
        scenes = [
            (
                driven.observation[starts[index] + 1 : starts[index] + 1 + horizon, car],
                dreams[index].observation[:, car],
                f"track {seeds[car]}, after {starts[index]} steps",
            )
            for index, car in _longest(driven, starts, horizon)
        ]
        dream_pictures.film(folder / "dream.gif", scenes)
        write_json(folder / "dream.json", report)
    return report


def _dream(dreamer: Dreamer, params: Params, driven: Driven, start: int, horizon: int) -> Dream:
    """Predicts `horizon` steps from the belief at `start`: the mean of `_DRAWS` dreams a car."""
    now = jax.tree.map(lambda x: x[start], driven.belief)
    state, action = jax.tree.map(
        lambda x: jnp.repeat(jnp.asarray(x), _DRAWS, axis=-2),
        (now, driven.action[start : start + horizon]),
    )
    dream = dreamer.follow(params, state, action, jax.random.PRNGKey(start))
    return jax.tree.map(_mean_of_draws, dream)


def print_dream(report: Mapping[str, Any]) -> None:
    """Prints the errors at a few horizons, and the share of episode ends that were foreseen."""
    console = make_console()
    for name in ("rays", "speed"):
        for step in (1, 5, 15, 30):
            if step <= report["horizon_steps"]:
                value = report[f"{name}_error_pct"][step - 1]
                console.print(f"figure {name}_error_pct_at_{step}={value}", highlight=False)
    console.print(f"figure end_foreseen_share={report['end_foreseen_share']}", highlight=False)


def _load_params(
    folder: Path, path: Path, support: DreamSupport, agent: Agent, seed: int
) -> tuple[checkpoint.Save, Params]:
    """Returns a save and its parameters for dreaming, which include the decoder and the heads."""
    if is_same_folder(path, folder) or path.resolve().parent.name == "best":
        save = checkpoint.latest(folder / "checkpoints")
    else:
        save = checkpoint.open_save(path)
    if save is None:
        raise CheckpointError(f"{folder} holds no complete checkpoint yet: train it first")
    state = jax.eval_shape(lambda: agent.learner.init(seed))
    return save, support.params_of(checkpoint.load(save, state, part="learner"))


def _drive(
    race_config: RaceConfig, support: DreamSupport, agent: Agent, params: Params, seeds: tuple
) -> Driven:
    """Drives every track; a car that crashes or finishes starts again."""
    policy_params = support.policy_params_of(params)
    race = make_race(race_config.alone, make_pool(seeds, race_config.track), track_choice="fixed")
    number = len(seeds)

    def step(carry: tuple, key: jax.Array) -> tuple[tuple, Driven]:
        race_state, now, policy_carry = carry
        policy_carry, action = agent.policy.act(policy_params, policy_carry, now, key, False)
        race_state, after, _ = race.step(race_state, action)
        fields = now.observation, now.reward, now.is_first, now.is_last, now.is_terminal
        belief = support.belief_of(policy_carry)
        return (race_state, after, policy_carry), Driven(*fields, action, belief)

    @jax.jit
    def run() -> Driven:
        race_state, now = race.reset(jnp.arange(number, dtype=jnp.int32), 0)
        carry = race_state, now, agent.policy.initial(number)
        return jax.lax.scan(step, carry, jax.random.split(jax.random.PRNGKey(0), _DRIVE_STEPS))[1]

    return run()


def _mean_of_draws(x: jax.Array) -> np.ndarray:
    """Averages the draws: `[H, N * draws, ...]` to `[H, N, ...]`."""
    drawn = np.asarray(x)
    return drawn.reshape(drawn.shape[0], -1, _DRAWS, *drawn.shape[2:]).mean(axis=2)


def _errors(
    driven: Driven, dreams: list[Dream], starts: np.ndarray, horizon: int
) -> dict[str, list[float] | float | int]:
    """Returns the errors by horizon, over steps in the same episode as the start."""
    real = {
        name: np.stack([getattr(driven, name)[s + 1 : s + 1 + horizon] for s in starts])
        for name in ("observation", "reward", "is_first", "is_terminal")
    }
    same = ~np.maximum.accumulate(real["is_first"], axis=1)  # [starts, H, N]
    dreamt = {
        name: np.stack([getattr(dream, name) for dream in dreams])
        for name in ("observation", "reward", "continues")
    }
    last_seen = np.stack([driven.observation[s] for s in starts])[:, None]

    def mean(values: np.ndarray) -> list[float]:
        total = np.where(same, values, 0.0).sum(axis=(0, 2)) / np.maximum(same.sum((0, 2)), 1)
        return [round(float(value), 4) for value in total]

    off = 100 * np.abs(dreamt["observation"] - real["observation"])
    stale = 100 * np.abs(last_seen - real["observation"])
    survives = np.cumprod(dreamt["continues"], axis=1)[:, -1]
    ends = (real["is_terminal"] & same).any(axis=1)
    return {
        "rays_error_pct": mean(off[..., :RAYS].mean(axis=-1)),
        "speed_error_pct": mean(off[..., RAYS]),
        "reward_error": mean(np.abs(dreamt["reward"] - real["reward"])),
        "continue_error": mean(np.abs(dreamt["continues"] - ~real["is_terminal"])),
        # The baseline to beat: the last observation never changes.
        "rays_stale_error_pct": mean(stale[..., :RAYS].mean(axis=-1)),
        "speed_stale_error_pct": mean(stale[..., RAYS]),
        "dreams": int(same[:, 0].sum()),
        "end_foreseen_share": round(float((survives[ends] < 0.5).mean()), 4) if ends.any() else 0.0,
        "ends": int(ends.sum()),
    }


def _longest(driven: Driven, starts: np.ndarray, horizon: int) -> list[tuple[int, int]]:
    """Chooses a few (start, car) whose episode lasts as long as the dream."""
    chosen = []
    for index in np.linspace(0, len(starts) - 1, 5).astype(int)[:4]:
        window = driven.is_first[starts[index] + 1 : starts[index] + 1 + horizon]
        cars = np.flatnonzero(~window.any(axis=0))
        if len(cars):
            chosen.append((int(index), int(cars[index % len(cars)])))
    return chosen
