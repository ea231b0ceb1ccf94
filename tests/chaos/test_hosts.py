"""A training on three hosts, a head and two workers, that lose power or their connection.

`make test-chaos` runs it in its short form, `make test-chaos CHAOS=full` in the long one.
"""

import os
import shutil
import time

import pytest

from cluster.chaos.watch import is_newest_save_sound
from rlcar.storage import checkpoint
from tests.chaos.cluster import BACK_S, START_S, Cluster
from tests.chaos.hosts import Hosts, why_not

IS_FULL = os.environ.get("CHAOS") == "full"
PARTITION_S = 60.0 if IS_FULL else 15.0
ROUNDS = 5 if IS_FULL else 1
REDIS = shutil.which("redis-server")

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(bool(reason := why_not()), reason=str(reason)),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    with Hosts(folder) as hosts:
        cluster = Cluster(hosts, folder)
        storage = folder / "gcs"
        storage.mkdir()
        cluster.start({"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(storage)})
        yield cluster


@pytest.mark.parametrize("number", range(ROUNDS))
def test_training_goes_on_when_a_host_dies_and_takes_it_in_again(cluster, number):
    cluster.hosts.kill("two")
    cluster.wait(cluster.is_training(time.monotonic()), BACK_S)
    cluster.hosts.boot("two")
    cluster.wait(cluster.has_recovered(time.monotonic()), BACK_S)


def test_training_goes_on_while_a_host_is_cut_off(cluster):
    cut_s = time.monotonic()
    cluster.hosts.cut("two")
    cluster.wait(lambda: time.monotonic() - cut_s > PARTITION_S, PARTITION_S + 10)
    cluster.wait(cluster.is_training(cut_s + 10.0), BACK_S)
    cluster.hosts.mend("two")
    cluster.wait(cluster.has_recovered(time.monotonic()), BACK_S)


def test_training_goes_on_when_the_control_service_is_killed(cluster):
    (gcs,) = cluster.hosts.process_ids("head", "gcs_server")
    killed_s = time.monotonic()
    cluster.hosts.run("head", "kill", "-9", gcs)
    cluster.wait(cluster.has_recovered(killed_s), BACK_S)


def test_a_driver_that_dies_with_its_host_leaves_a_sound_checkpoint(cluster):
    assert cluster.watch.checkpoints_lost == 0
    newest = checkpoint.latest(cluster.watch.folder / "checkpoints")
    cluster.hosts.kill("one")
    cluster.driver.wait(timeout=30)
    assert is_newest_save_sound(cluster.watch.folder)
    assert checkpoint.latest(cluster.watch.folder / "checkpoints").env_steps >= newest.env_steps


# The control service with Redis behind it, as KubeRay runs it. This test has hosts of its own, and
# comes here because the next one waits for the lease of the lost driver, a minute.
@pytest.mark.skipif(REDIS is None, reason="not installed: redis-server")
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


def test_a_training_is_continued_on_another_host(cluster):
    newest = checkpoint.latest(cluster.watch.folder / "checkpoints")
    cluster.train_on("two", "--resume", "auto")
    cluster.wait(lambda: cluster.watch.env_steps > newest.env_steps + 2048, START_S)
    assert f"continuing {newest.path.name}" in cluster.log()
    assert cluster.watch.checkpoints_lost == 0
