"""Drives a policy once over named tracks, scores it against the lower bound, and reports."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.errors import ConfigError
from rlcar.evaluation.driven_steps import DrivenSteps, no_steps, with_step
from rlcar.evaluation.json_file import write_json
from rlcar.sim import CarView, Race, make_race
from rlcar.system import heartbeat
from rlcar.track import Track, make_pool, set_seeds
from rlcar.track.bound import lap_time_bound_steps
from rlcar.track.racing_line import racing_lines
from rlcar.types import Array, Evaluation, Outcomes, Params, Policy, TimeStep

# Limit of an episode in an evaluation. A track that was not lapped counts as a lap of this length.
TIME_LIMIT_STEPS = 1000
_RESAMPLES = 2000  # of the bootstrap


class Laps(NamedTuple):
    """Results of one policy on N tracks, one episode each, as NumPy arrays.

    The driven lines have a row for the start and one for each step. They are NaN after the end of
    a car's episode.
    """

    lap_time_steps: np.ndarray  # [N] int32, 0 = no lap
    is_crash: np.ndarray  # [N] bool
    progress: np.ndarray  # [N] float32, where the episode ended, 0..1; 1 = lapped
    steps: np.ndarray  # [N] int32, length of the episode
    smoothness: (
        np.ndarray
    )  # [N] float32, mean |steering - steering one step before|; 0 is smoothest
    reward: np.ndarray  # [N] float32, sum over the episode
    x_px: np.ndarray  # [T, N] float32
    y_px: np.ndarray  # [T, N] float32
    speed_px_per_step: np.ndarray  # [T, N] float32
    driven: DrivenSteps | None = None  # only if asked for


Evaluator = Callable[[Params], Laps]


class _Drive(NamedTuple):
    """Carry of the driving loop; a car whose episode has ended keeps its values."""

    step: Array  # [] int32, number of steps driven so far
    race: Any
    time_step: TimeStep
    policy: Any
    key: Array
    steering: Array  # [N] float32, of the step before
    is_done: Array  # [N] bool
    is_shown: Array  # [] bool, the policy has been called after all cars were done
    laps: Any  # Laps of JAX arrays: smoothness is a sum, lines have a row for each possible step


def track_seeds(track_set: str | Sequence[int], config: TrackConfig) -> tuple[int, ...]:
    """Returns the seeds of a named set, as `rlcar.track.set_seeds`, or the given seeds."""
    if not isinstance(track_set, str):
        return tuple(int(seed) for seed in track_set)
    return tuple(set_seeds(track_set, config))


def drive(
    policy: Policy,
    params: Params,
    race_config: RaceConfig,
    track_set: str | Sequence[int],
    *,
    seed: int = 0,
    shows_ends: bool = False,
    keeps_steps: bool = False,
) -> Laps:
    """Drives each track of the set once, all at once; compiles once for equal arguments.

    With `shows_ends` the policy is also called with the last observation of the slowest car. With
    `keeps_steps` the result holds every observation, action and reward.
    """
    seeds = track_seeds(track_set, race_config.track)
    return _cached_evaluator(policy, race_config, seeds, seed, shows_ends, keeps_steps)(params)


def make_evaluator(
    policy: Policy,
    race_config: RaceConfig,
    track_set: str | Sequence[int],
    *,
    seed: int = 0,
    shows_ends: bool = False,
    keeps_steps: bool = False,
) -> Evaluator:
    """Makes `evaluate(params) -> Laps`, which compiles at its first call only.

    An evaluation is one lap of a car alone in at most `TIME_LIMIT_STEPS`, so that runs with other
    race settings compare; the loop stops when the last car is done, or with `shows_ends` one step
    later. Blocks until the result is on the host.
    """
    seeds = track_seeds(track_set, race_config.track)
    if not seeds:
        raise ConfigError("the track set is empty: there is nothing to drive")
    limit = min(race_config.time_limit_steps, TIME_LIMIT_STEPS)
    rules = race_config.alone.model_copy(update={"laps": 1, "time_limit_steps": limit})
    race = _race(rules, seeds)

    @jax.jit
    def run(params: Params) -> Laps:
        steps = limit + shows_ends
        start = _start(policy, race, len(seeds), seed, steps)
        if keeps_steps:
            laps = start.laps._replace(driven=no_steps(steps, len(seeds)))
            start = start._replace(laps=laps)
        return jax.lax.while_loop(
            lambda drive: (
                (drive.step < steps) & ~(drive.is_shown if shows_ends else drive.is_done.all())
            ),
            lambda drive: _advance(policy, race, params, drive),
            start,
        ).laps

    def evaluate(params: Params) -> Laps:
        # The lines are NaN after the end of a car's episode on purpose.
        with jax.debug_nans(False), heartbeat.stage("evaluating"):
            return _finish(jax.device_get(run(params)))

    return evaluate


def report(
    laps_by_driver: Mapping[str, Laps],
    tracks: Sequence[Track],
    race_config: RaceConfig,
    *,
    track_set: str = "",
) -> dict[str, Any]:
    """Scores each driver on the same tracks; the mapping's first driver is the one under test.

    `over_bound_pct` is the mean over tracks of `100 (lap time / lower bound - 1)`, where a track
    that was not lapped is charged `TIME_LIMIT_STEPS`: stopping early never pays. The intervals are
    percentiles of a bootstrap over tracks, with the same resamples for every driver. They show the
    influence of the choice of tracks, and not that of the training seed.
    """
    bound_steps = lap_time_bound_steps(tracks, race_config.vehicle.top_speed_px_per_step)
    estimate_steps = [line.lap_time_steps for line in racing_lines(tracks, race_config)]
    resample = np.random.default_rng(0).integers(
        len(tracks), size=(_RESAMPLES, len(tracks)), dtype=np.int32
    )
    drivers = {
        name: _score(laps, tracks, bound_steps, resample) for name, laps in laps_by_driver.items()
    }
    name = next(iter(laps_by_driver))
    return {
        "driver": name,
        "track_set": track_set,
        "tracks": len(tracks),
        # Of own tracks, in the order of `per_track`; drawn ones have none.
        "track_names": [track.name for track in tracks if track.name],
        "time_limit_steps": TIME_LIMIT_STEPS,
        "bound_steps": float(bound_steps.mean()),
        "racing_line_estimate_steps": float(np.mean(estimate_steps)),
        "lap_rate": drivers[name]["lap_rate"],
        "lap_time_steps": drivers[name]["lap_time_steps"],
        "over_bound_pct": drivers[name]["over_bound_pct"],
        "drivers": drivers,
    }


def score_laps(laps: Laps, bound_steps: np.ndarray | None = None) -> Evaluation:
    """Returns the metrics of an evaluation during training.

    A track that was not lapped counts as `TIME_LIMIT_STEPS`. `bound_steps` are the lower bounds of
    the lap times `[N]`, to which these are compared too.
    """
    is_lap = laps.lap_time_steps > 0
    charged = float(charged_steps(laps).mean())
    metrics = {
        "evaluation/lap_rate": float(is_lap.mean()),
        "evaluation/charged_lap_steps": charged,
        "evaluation/progress": float(laps.progress.mean()),
    }
    if bound_steps is not None:
        over_bound_pct = 100.0 * (charged_steps(laps) / bound_steps - 1.0)
        metrics["evaluation/over_bound_pct"] = float(over_bound_pct.mean())
    outcomes = Outcomes(len(is_lap), int(is_lap.sum()), float(laps.reward.mean()))
    return Evaluation(metrics, charged, outcomes)


def charged_steps(laps: Laps) -> np.ndarray:
    """Returns the cost of each lap: its steps `[N]`, or the time limit if there was no lap."""
    is_lap = laps.lap_time_steps > 0
    return np.where(is_lap, laps.lap_time_steps, TIME_LIMIT_STEPS).astype(np.float64)


def write_report(
    folder: Path,
    report: Mapping[str, Any],
    laps: Laps,
    tracks: Sequence[Track],
    metrics_rows: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Writes the pictures and then `report.json`, each complete or absent; returns the latter.

    `laps` are those of the driver under test; without metrics rows there is no learning curve.
    """
    # Here and not above: the simulators use this module, and Matplotlib would be a quarter of the
    # CPU time in which each of their processes starts.
    from rlcar.evaluation import pictures

    folder.mkdir(parents=True, exist_ok=True)
    name = f"{report['track_set']} tracks" if report["track_set"] else "tracks"
    title = f"{report['driver']}: {_percent(report['lap_rate'])} of {len(tracks)} {name} lapped"
    if report["lap_time_steps"] is not None:
        title += f", {report['lap_time_steps']:.1f} steps a lap"
    pictures.draw_laps(folder / "laps.png", tracks, laps, title)
    pictures.draw_best(
        folder / "best.png", tracks, laps, f"{report['driver']}: quickest for the road's length"
    )
    if metrics_rows:
        pictures.draw_learning_curve(folder / "learning_curve.png", metrics_rows)
    path = folder / "report.json"
    write_json(path, report)
    return path


# A report evaluates five drivers. A smaller cache would evict each before the next report.
@functools.lru_cache(maxsize=4)
def _race(rules: RaceConfig, seeds: tuple[int, ...]) -> Race:
    """Makes a race once for all drivers of a report, whose programs then share its traced step."""
    return make_race(rules, make_pool(seeds, rules.track), track_choice="fixed")


@functools.lru_cache(maxsize=16)
def _cached_evaluator(
    policy: Policy,
    race_config: RaceConfig,
    seeds: tuple[int, ...],
    seed: int,
    shows_ends: bool,
    keeps_steps: bool,
) -> Evaluator:
    return make_evaluator(
        policy, race_config, seeds, seed=seed, shows_ends=shows_ends, keeps_steps=keeps_steps
    )


def _start(policy: Policy, race: Race, number_of_cars: int, seed: int, limit: int) -> _Drive:
    """Places every car on the start line of its track."""
    state, time_step = race.reset(jnp.arange(number_of_cars, dtype=jnp.int32), seed)
    everybody = jnp.ones(number_of_cars, bool)
    laps = _empty_laps(number_of_cars, limit)
    return _Drive(
        step=jnp.int32(0),
        race=state,
        time_step=time_step,
        policy=policy.initial(number_of_cars),
        key=jax.random.key(seed),
        steering=jnp.zeros(number_of_cars, jnp.float32),
        is_done=~everybody,
        is_shown=jnp.bool_(False),
        laps=_with_row(laps, jnp.int32(0), race.view(state), everybody),
    )


def _advance(policy: Policy, race: Race, params: Params, drive: _Drive) -> _Drive:
    """Drives every car one step. Cars that are done continue without effect on the results."""
    key, act_key = jax.random.split(drive.key)
    seen = (race.view(drive.race),) if policy.uses_car_view else ()
    carry, action = policy.act(params, drive.policy, drive.time_step, act_key, False, *seen)
    state, time_step, events = race.step(drive.race, action)
    view, step, laps = race.view(state), drive.step + 1, drive.laps
    is_driving = ~drive.is_done
    if laps.driven is not None:
        now = (drive.time_step.observation, jnp.clip(action, -1.0, 1.0), time_step.reward)
        laps = laps._replace(driven=with_step(laps.driven, drive.step, now, is_driving))
    is_lap = events.lap_time_steps > 0
    steering = jnp.clip(action[:, 0], -1.0, 1.0).astype(jnp.float32)
    # The first step has no steering before it, so it adds nothing.
    change = jnp.where(drive.step == 0, 0.0, jnp.abs(steering - drive.steering))
    laps = laps._replace(
        lap_time_steps=jnp.where(is_driving, events.lap_time_steps, laps.lap_time_steps),
        is_crash=jnp.where(is_driving, events.is_crash, laps.is_crash),
        progress=jnp.where(is_driving, jnp.where(is_lap, 1.0, view.progress), laps.progress),
        steps=laps.steps + is_driving,
        smoothness=laps.smoothness + jnp.where(is_driving, change, 0.0),
        reward=laps.reward + jnp.where(is_driving, time_step.reward, 0.0),
    )
    return _Drive(
        step=step,
        race=state,
        time_step=time_step,
        policy=carry,
        key=key,
        steering=steering,
        is_done=drive.is_done | time_step.is_last,
        is_shown=drive.is_done.all(),
        laps=_with_row(laps, step, view, is_driving),
    )


def _empty_laps(number_of_cars: int, limit: int) -> Laps:
    def column(dtype: Any) -> Any:
        return jnp.zeros(number_of_cars, dtype)

    line: Any = jnp.full((limit + 1, number_of_cars), jnp.nan, jnp.float32)
    return Laps(
        lap_time_steps=column(jnp.int32),
        is_crash=column(bool),
        progress=column(jnp.float32),
        steps=column(jnp.int32),
        smoothness=column(jnp.float32),
        reward=column(jnp.float32),
        x_px=line,
        y_px=line,
        speed_px_per_step=line,
    )


def _with_row(laps: Any, step: Array, view: CarView, is_driving: Array) -> Any:
    """Writes row `step` of the lines, with NaN for cars that were done before."""

    def write(line: Any, value: Array) -> Any:
        row = jnp.where(is_driving, value, jnp.nan).astype(jnp.float32)
        return jax.lax.dynamic_update_index_in_dim(line, row, step, axis=0)

    return laps._replace(
        x_px=write(laps.x_px, view.x_px),
        y_px=write(laps.y_px, view.y_px),
        speed_px_per_step=write(laps.speed_px_per_step, view.speed_px_per_step),
    )


def _finish(laps: Laps) -> Laps:
    """Cuts the lines after the longest episode; turns the sums of steering into means."""
    rows = int(laps.steps.max()) + 1
    if laps.driven is not None:
        laps = laps._replace(driven=DrivenSteps(*(array[: rows - 1] for array in laps.driven)))
    return laps._replace(
        smoothness=laps.smoothness / np.maximum(laps.steps - 1, 1).astype(np.float32),
        x_px=laps.x_px[:rows],
        y_px=laps.y_px[:rows],
        speed_px_per_step=laps.speed_px_per_step[:rows],
    )


def _score(
    laps: Laps, tracks: Sequence[Track], bound_steps: np.ndarray, resample: np.ndarray
) -> dict[str, Any]:
    """Scores one driver; `resample` `[resamples, N]` are track indices."""
    assert len(laps.steps) == len(tracks), (len(laps.steps), len(tracks))
    is_lap = laps.lap_time_steps > 0
    over_bound_pct = 100.0 * (charged_steps(laps) / bound_steps - 1.0)
    is_timeout = ~is_lap & ~laps.is_crash
    return {
        "lap_rate": float(is_lap.mean()),
        "lap_rate_interval": _interval(is_lap, resample),
        "lap_time_steps": float(laps.lap_time_steps[is_lap].mean()) if is_lap.any() else None,
        "over_bound_pct": float(over_bound_pct.mean()),
        "over_bound_pct_interval": _interval(over_bound_pct, resample),
        "crash_rate": float(laps.is_crash.mean()),
        "timeout_rate": float(is_timeout.mean()),
        "progress": float(laps.progress.mean()),
        "smoothness": float(laps.smoothness.mean()),
        "reward": float(laps.reward.mean()),
        "per_track": [
            {
                "seed": int(track.seed),
                "bound_steps": int(bound_steps[index]),
                "lap_time_steps": int(laps.lap_time_steps[index]) if is_lap[index] else None,
                "over_bound_pct": float(over_bound_pct[index]),
                "is_crash": bool(laps.is_crash[index]),
                "progress": float(laps.progress[index]),
                "steps": int(laps.steps[index]),
                "smoothness": float(laps.smoothness[index]),
            }
            for index, track in enumerate(tracks)
        ],
    }


def _interval(values: np.ndarray, resample: np.ndarray) -> list[float]:
    """Returns the 2.5 and 97.5 percentiles of the mean over resampled tracks."""
    means = np.asarray(values, np.float64)[resample].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return [float(low), float(high)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
