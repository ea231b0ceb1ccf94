"""The fleet with processes that really die, hang and fail."""

import os
import signal
import socket
import time

import pytest
import ray

from cluster.config import ClusterConfig
from cluster.training.fleet import Fleet
from cluster.training.ordered_fleet import OrderedFleet, SimulatorLostError
from cluster.training.weights import PublishedWeights
from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.evaluation.environment import spec_of
from rlcar.sim import SPEC
from rlcar.training.trainer import Trainer
from tests.support.slow_environment import STEP_S

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("embedded_ray"),
]

PATIENCE_S = 90.0
FLEET_LOGGER = "cluster.training.fleet"


@pytest.fixture(scope="module")
def config():
    return make_config(mode="test", algorithm="ppo")  # the quickest to compile


@pytest.fixture(scope="module")
def weights(embedded_ray, config):
    return PublishedWeights(0, ray.put(Trainer(config, SPEC, make_agent(config, SPEC)).weights()))


@pytest.fixture
def make_fleet():
    """Makes fleets that end with the test, however it ends: their cores are needed."""
    fleets = []

    def make(config, cluster):
        fleets.append(Fleet(config, cluster))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.stop()


def blocks_until(fleet, weights, done):
    """Feeds the fleet and collects what it yields until `done(blocks)`."""
    found, end_s = [], time.monotonic() + PATIENCE_S
    while not done(found):
        assert time.monotonic() < end_s, (len(found), fleet.restarts)
        fleet.request_blocks(weights)
        found += fleet.take_blocks(timeout_s=0.2)
    return found


def process_ids(fleet):
    return [location.pid for location in fleet.locations()]


def test_the_driver_gets_episodes_and_a_ref_to_their_block(make_fleet, config, weights):
    fleet = make_fleet(config, ClusterConfig(simulators=1))
    (ref, episodes, version), *_ = blocks_until(fleet, weights, len)
    assert isinstance(ref, ray.ObjectRef)
    assert version == weights.version
    block = ray.get(ref)
    assert block.reward.shape == (config.training.block_length, config.training.cars)
    assert episodes.env_steps == block.reward.size


def test_a_simulator_never_has_more_blocks_in_flight_than_allowed(make_fleet, config, weights):
    fleet = make_fleet(config, ClusterConfig(simulators=1, blocks_in_flight=2))
    for _ in range(3):
        fleet.request_blocks(weights)
    end_s = time.monotonic() + PATIENCE_S
    found = []
    while len(found) < 2 and time.monotonic() < end_s:
        found += fleet.take_blocks(timeout_s=0.2)
    found += fleet.take_blocks(timeout_s=2.0)
    assert len(found) == 2


@pytest.mark.slow
def test_a_stopped_simulator_is_replaced_while_the_other_goes_on(make_fleet, config, weights):
    cluster = ClusterConfig(simulators=2, simulator_deadline_s=3.0, start_deadline_s=120.0)
    fleet = make_fleet(config, cluster)
    fleet.start()
    stopped, running = process_ids(fleet)
    # Until both have delivered: one that still compiles has another deadline.
    blocks_until(fleet, weights, lambda _: fleet.delivering() == 2)
    os.kill(stopped, signal.SIGSTOP)
    stopped_s = time.monotonic()
    meanwhile = blocks_until(fleet, weights, lambda found: fleet.restarts == 1)
    silence_s = time.monotonic() - stopped_s
    blocks_until(fleet, weights, lambda _: fleet.delivering() == 2)
    fresh, other = process_ids(fleet)
    assert 2.0 < silence_s < 60.0
    assert len(meanwhile) > 2 * cluster.blocks_in_flight
    assert other == running
    assert fresh != stopped


@pytest.fixture(scope="module")
def slow():
    """A block takes `SLOW_BLOCK_S`, which is twice as long as `SLOW_CLUSTER` allows silence."""
    return make_config(
        mode="test",
        preset="ppo",
        environment="tests.support.slow_environment:TestSlow-v0",
        overrides=["training.cars=4", "training.block_length=32"],
    )


@pytest.fixture(scope="module")
def slow_weights(embedded_ray, slow):
    spec = spec_of(slow)
    return PublishedWeights(0, ray.put(Trainer(slow, spec, make_agent(slow, spec)).weights()))


SLOW_BLOCK_S = 4 * 32 * STEP_S
SLOW_CLUSTER = ClusterConfig(
    simulators=1, simulator_deadline_s=SLOW_BLOCK_S / 2, start_deadline_s=PATIENCE_S
)


@pytest.mark.slow
def test_a_simulator_of_a_slow_environment_is_not_taken_for_silent(make_fleet, slow, slow_weights):
    fleet = make_fleet(slow, SLOW_CLUSTER)
    blocks_until(fleet, slow_weights, lambda found: len(found) >= 3)
    assert (fleet.restarts, fleet.lost) == (0, 0)


@pytest.mark.slow
def test_while_the_driver_does_something_else_for_long_nobody_becomes_silent(
    make_fleet, slow, slow_weights
):
    """During an evaluation nobody asks the simulators, and the next look must not judge that."""
    fleet = make_fleet(slow, SLOW_CLUSTER)
    blocks_until(fleet, slow_weights, len)
    fleet.request_blocks(slow_weights)
    for _ in range(2):
        list(fleet.take_blocks(timeout_s=0.0))
        time.sleep(SLOW_BLOCK_S * 0.7)  # longer than the deadline
    list(fleet.take_blocks(timeout_s=0.0))
    blocks_until(fleet, slow_weights, len)
    assert (fleet.restarts, fleet.lost) == (0, 0)


@pytest.mark.slow
def test_in_a_fixed_order_a_slow_simulator_is_not_lost_and_a_stopped_one_is(slow, slow_weights):
    with OrderedFleet(slow, SLOW_CLUSTER) as fleet:

        def take(number):
            end_s = time.monotonic() + PATIENCE_S
            while number:
                assert time.monotonic() < end_s, number
                number -= fleet.take_block(timeout_s=0.2) is not None

        fleet.request_all(slow_weights)
        fleet.request(slow_weights)
        take(SLOW_CLUSTER.blocks_in_flight)
        (actor,) = fleet._actors
        process = ray.get(actor.location.remote()).pid
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(SimulatorLostError, match=r"simulator 0: silent for \d+ s"):
                take(1)
        finally:
            os.kill(process, signal.SIGCONT)


def test_a_simulator_that_is_killed_each_time_ends_the_training_and_says_how_often(
    make_fleet, config, weights, caplog
):
    fleet = make_fleet(
        config, ClusterConfig(simulators=1, most_restarts_in_a_row=1, restart_pause_s=0.1)
    )

    def kill_it_and_wait():
        before = fleet.restarts
        while not (pids := process_ids(fleet)):
            fleet.start()
        (pid,) = pids
        fleet.request_blocks(weights)  # several calls die with it: that is one failure
        os.kill(pid, signal.SIGKILL)
        blocks_until(fleet, weights, lambda _: fleet.restarts > before)
        assert fleet.restarts == before + 1

    kill_it_and_wait()
    with pytest.raises(UserError, match=r"simulator 0 failed 2 times .* ActorDiedError"):
        kill_it_and_wait()
    assert fleet.restarts == 2
    messages = [record.message for record in caplog.records if record.name == FLEET_LOGGER]
    assert len(messages) == 2
    node = f"{socket.gethostname()} (node {ray.get_runtime_context().get_node_id()[:12]})"
    for failures, message in enumerate(messages, start=1):
        assert message.startswith(f"simulator 0 on {node} is replaced: ActorDiedError")
        assert message.endswith(f"failures of simulators on this node: {failures}")


def test_a_simulator_that_cannot_start_ends_the_training_and_says_why(make_fleet, config, weights):
    broken = config.model_copy(update={"race": None})
    fleet = make_fleet(broken, ClusterConfig(simulators=1, most_restarts_in_a_row=1))
    with pytest.raises(UserError, match="simulator 0 failed 2 times") as caught:
        blocks_until(fleet, weights, len)
    assert "AttributeError" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_replacement_drives_other_races_than_its_predecessor(make_fleet, config, weights):
    fleet = make_fleet(config, ClusterConfig(simulators=1))
    (first, *_), *_ = blocks_until(fleet, weights, len)
    before = ray.get(first).observation.copy()
    os.kill(process_ids(fleet)[0], signal.SIGKILL)
    blocks_until(fleet, weights, lambda _: fleet.restarts == 1)
    (fresh, *_), *_ = blocks_until(fleet, weights, len)
    after = ray.get(fresh).observation
    assert (before != after).any()
