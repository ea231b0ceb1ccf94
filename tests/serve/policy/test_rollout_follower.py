"""What a server reads, writes and computes at each look at a rollout."""

import asyncio
import shutil
import threading

import pytest

from rlcar.registry import Registry
from rlcar.registry.shared_counts import SharedCounts
from serve.delivery import counts as counting
from serve.delivery.integrations import Integrations
from serve.delivery.operator import Operator
from serve.delivery.specification import parse_specification
from serve.observing.metrics import ServerMetrics
from serve.policy.alias_follower import AliasFollower
from serve.policy.rollout_arms import RolloutArms
from serve.policy.rollout_follower import RolloutFollower


class Fleet:
    """One server's follower on a registry of its own, without the server."""

    def __init__(self, folder, clock):
        registry, metrics = Registry(folder), ServerMetrics()
        self.operator, self.arms = Operator(registry, "champion", "me"), RolloutArms(clock)
        alias_follower = AliasFollower(registry, "champion", metrics)
        alias_follower.load_first()
        self.follower = RolloutFollower(
            self.operator, alias_follower, self.arms, metrics, Integrations()
        )

    def start(self, *steps):
        specification = parse_specification({"strategy": {"canary": {"steps": list(steps)}}})
        return self.operator.start(2, specification, lambda _: None)

    def turn(self):
        asyncio.run(self.follower.turn())


@pytest.fixture
def fleet(folder, tmp_path, clock):
    shutil.copytree(folder, tmp_path / "models")
    return Fleet(tmp_path / "models", clock)


def test_counts_are_written_and_compared_when_they_change_and_off_the_event_loop(
    fleet, monkeypatch
):
    written, threads = [], []
    write, compare = SharedCounts.write, counting.paired_differences

    def note_write(shared, server, counts):
        written.append(server)
        write(shared, server, counts)

    def note_thread(outcomes):
        threads.append(threading.current_thread())
        return compare(outcomes)

    monkeypatch.setattr(SharedCounts, "write", note_write)
    monkeypatch.setattr(counting, "paired_differences", note_thread)
    state = fleet.start({"setWeight": 50}, {"pause": {}})
    shared = fleet.operator.registry.rollout_counts("champion", state.rollout)
    fleet.turn()
    fleet.turn()
    assert len(written) == 1
    compared = len(threads)
    fleet.arms.add_outcome(1, 1.0, None)
    fleet.arms.add_outcome(2, 3.0, None)
    fleet.turn()
    assert (len(written), fleet.follower.pooled.evidence("reward").difference) == (2, 2.0)
    assert len(threads) == compared + 1  # nothing is new about successes
    fleet.arms.counts.candidate.answers += 5
    shared.write("other", {"candidate": {"answers": 7}})
    fleet.turn()
    assert fleet.follower.pooled.candidate.answers == 12
    assert len(threads) == compared + 1
    assert threading.main_thread() not in threads
    shared.clear()
    fleet.turn()
    fleet.turn()
    assert list(shared.read()) == [written[0]]


def test_the_next_weight_is_that_of_the_next_step_that_sets_one(fleet):
    pause = {"pause": {}}
    fleet.start({"setWeight": 0}, pause, {"setWeight": 20}, pause, {"setWeight": 10}, pause)
    weights = []
    for _ in range(3):
        fleet.turn()
        weights.append((fleet.arms.active.weight, fleet.arms.active.next_weight))
        fleet.operator.resume()
    assert weights == [(0.0, 20.0), (20.0, 10.0), (10.0, 0.0)]
