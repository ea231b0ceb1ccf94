"""A sweep in Tune's terms, without a cluster."""

from typing import NamedTuple

from cluster.sweeps import tune_parts
from cluster.sweeps.progress import SchedulerKeeper
from cluster.sweeps.search_space import Dimension
from tests.cluster.sweeps.tiny_sweep import RATE, make_sweep

CARS = {"space": {"training.cars": {"choice": [4, 8]}}}


def drawn(sweep, given, number=300):
    domain = tune_parts.domain(sweep, Dimension.model_validate(given))
    return domain.sample(size=number)


def test_ranges_are_drawn_from_end_to_end():
    sweep = make_sweep()
    assert set(drawn(sweep, {"integer": [3, 6]})) == {3, 4, 5, 6}
    assert set(drawn(sweep, {"choice": ["a", None, 1.5]})) == {"a", None, 1.5}
    assert all(0.25 <= value <= 0.5 for value in drawn(sweep, {"uniform": [0.25, 0.5]}))
    low = [value for value in drawn(sweep, {"loguniform": [1e-4, 1.0]}) if value < 1e-2]
    assert 100 < len(low) < 200, "as many in each decade"


def test_a_grid_is_every_choice():
    sweep = make_sweep(search="grid", budget={"env_steps": 4096}, **CARS)
    assert tune_parts.search_space(sweep) == {"training.cars": {"grid_search": [4, 8]}}


def test_a_population_keeps_what_a_waiting_member_will_need():
    space = {RATE: {"loguniform": [1e-4, 1e-2]}}
    pbt = {"type": "pbt", "perturb_every_env_steps": 2560}
    population = make_sweep(scheduler=pbt, space=space)
    assert tune_parts.checkpoints_kept(population) == 2 + 3 * 3
    assert tune_parts.checkpoints_kept(make_sweep()) == 2


class Reported(NamedTuple):
    """As much of a trial as ASHA looks at."""

    trial_id: str


def test_rungs_outlive_an_interruption(tmp_path):
    sweep = make_sweep(scheduler={"type": "asha", "reduction_factor": 2.0}, goal="max")
    reported = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 9.0}
    decisions = []
    for leg in (("a", "b"), ("c", "d")):
        scheduler = tune_parts.scheduler(sweep)
        keeper = SchedulerKeeper(scheduler, tmp_path / "scheduler.pkl")
        for name in leg:
            trial = Reported(name)
            result = {"env_steps": 1024, sweep.metric: reported[name]}
            scheduler.on_trial_add(None, trial)
            decisions.append(scheduler.on_trial_result(None, trial, result))
            keeper.on_trial_result(0, [], trial, result)
    assert decisions == ["CONTINUE", "STOP", "STOP", "CONTINUE"]


def test_a_ray_of_our_own_holds_the_largest_trial():
    sweep = make_sweep(
        cluster={"simulators": 1, "learner_cpus": 2.0, "simulator_cpus": 0.5},
        space={"cluster.simulators": {"choice": [2, 8, 4]}},
    )
    largest = tune_parts.largest_trial(sweep)
    assert largest.simulators == 8
    assert tune_parts.runtime_config(sweep, largest) == largest
    assert tune_parts.largest_trial(make_sweep()) is None
    alone = make_sweep(budget={"trials": 4, "env_steps": 4096, "cpus": 4.0})
    assert tune_parts.runtime_config(alone, None).learner_cpus == 4.0
