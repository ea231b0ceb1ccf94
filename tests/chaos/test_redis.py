"""The control service with Redis behind it, as KubeRay runs it, on hosts of their own."""

import shutil
import time

import pytest

from cluster.chaos.watch import is_newest_save_sound
from tests.chaos.cluster import BACK_S, START_S, Cluster
from tests.chaos.hosts import Hosts, why_not

REDIS = shutil.which("redis-server")

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(bool(reason := why_not()), reason=str(reason)),
    pytest.mark.skipif(REDIS is None, reason="not installed: redis-server"),
    pytest.mark.timeout(1800),
]


def test_training_goes_on_when_the_head_loses_power_and_redis_knows_it_again(tmp_path):
    with Hosts(tmp_path) as hosts:
        cluster = Cluster(hosts, tmp_path)
        address = hosts.add("store")
        hosts.start("store", [str(REDIS), "--bind", address, "--protected-mode", "no"], {})
        cluster.start({"RAY_REDIS_ADDRESS": f"{address}:6379"})
        before = hosts.process_ids("head", "gcs_server")
        hosts.kill("head")
        killed_s = time.monotonic()
        hosts.boot("head")
        cluster.wait(lambda: hosts.process_ids("head", "gcs_server"), START_S)
        assert before
        cluster.wait(cluster.has_recovered(killed_s), BACK_S)
        # A simulator that dies now needs the control service to be started again.
        hosts.kill("two")
        cluster.wait(cluster.is_training(time.monotonic()), BACK_S)
        hosts.boot("two")
        cluster.wait(cluster.has_recovered(time.monotonic()), BACK_S)
        assert cluster.watch.checkpoints_lost == 0
        assert is_newest_save_sound(cluster.watch.folder)
