"""A training on three hosts: a head, and two workers, whose wires are cut and plugs are pulled.

`make test-chaos` runs it in its short form, `make test-chaos CHAOS=full` in the long one.
"""

import os
import sys
import time
from pathlib import Path

import pytest

from cluster.chaos_watch import Watch, is_newest_save_sound
from rlcar import checkpoint
from tests.chaos.hosts import RAY_FOLDER, Hosts, why_not

IS_FULL = os.environ.get("CHAOS") == "full"
PARTITION_S = 60.0 if IS_FULL else 20.0
ROUNDS = 5 if IS_FULL else 1
START_S = 180.0
BACK_S = 120.0

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(bool(reason := why_not()), reason=str(reason)),
    pytest.mark.timeout(1800),
]

RAY = str(Path(sys.executable).with_name("ray"))
PORT = 6379
TRAINING = [
    *("train", "--mode", "test", "--simulators", "2", "--name", "run"),
    *("--cluster", "simulator_deadline_s=10"),
    *("--set", "training.env_steps=100000000", "--set", "training.checkpoint_every_s=2"),
    *("--set", "training.log_every_s=0.2", "--set", "training.evaluate_every_env_steps=100000000"),
]


class Cluster:
    """The hosts, the training, and what is seen of it."""

    def __init__(self, hosts, folder):
        self.hosts, self.folder = hosts, folder
        self.watch = Watch(folder / "runs" / "run", window_s=2.0)
        self.addresses = {name: hosts.add(name) for name in ("head", "one", "two")}
        self.driver = None

    def start(self):
        storage = self.folder / "gcs"
        storage.mkdir()
        environment = {
            "HOME": str(self.folder),
            "RAY_TMPDIR": RAY_FOLDER,
            "RAY_AUTH_MODE": "disabled",
            "RAY_worker_niceness": "0",
            "RAY_gcs_storage": "rocksdb",
            "RAY_gcs_storage_path": str(storage),
            "JAX_PLATFORMS": "cpu",
        }
        head = self.addresses["head"]
        shared = ["--block", "--disable-usage-stats", "--object-store-memory=100000000"]
        head_service = [RAY, "start", "--head", f"--node-ip-address={head}", f"--port={PORT}"]
        head_service += ["--num-cpus=0", "--include-dashboard=false", *shared]
        self.hosts.start("head", head_service, environment)
        for name in ("one", "two"):
            worker = [RAY, "start", f"--address={head}:{PORT}", "--num-cpus=2"]
            worker += [f"--node-ip-address={self.addresses[name]}", *shared]
            self.hosts.start(name, worker, environment)
        self.wait(self.is_joined, START_S)
        self.train_on("one")
        self.wait(lambda: self.watch.is_whole, START_S)
        self.wait(lambda: self.watch.note_calm(time.monotonic()), START_S)

    def train_on(self, name, *more):
        head = self.addresses["head"]
        command = [sys.executable, "-m", "rlcar.cli", *TRAINING, *more]
        command += ["--address", f"{head}:{PORT}", "--runs", str(self.folder / "runs")]
        self.driver = self.hosts.popen(name, command, self.folder / "driver.log")

    def is_joined(self):
        code = (
            f"import ray; ray.init('{self.addresses['head']}:{PORT}', log_to_driver=False);"
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )
        try:
            return self.hosts.run("one", sys.executable, "-c", code).strip() == "3"
        except Exception:
            return False

    def wait(self, question, limit_s):
        """Waits while looking; returns the seconds it took."""
        began_s = time.monotonic()
        while not question():
            if self.driver is not None:
                assert self.driver.poll() is None, self.said()
            assert time.monotonic() - began_s < limit_s, f"not within {limit_s} s\n{self.said()}"
            time.sleep(0.1)
            self.watch.look(time.monotonic())
        return time.monotonic() - began_s

    def said(self):
        log = self.folder / "driver.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else "no driver yet"

    def goes_on(self, since_s):
        return lambda: self.watch.is_full_rate(since_s, time.monotonic())

    def is_whole(self, since_s):
        return lambda: self.watch.is_whole and self.goes_on(since_s)()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    with Hosts(folder) as hosts:
        cluster = Cluster(hosts, folder)
        cluster.start()
        yield cluster


@pytest.mark.parametrize("number", range(ROUNDS))
def test_training_goes_on_when_a_host_dies_and_takes_it_in_again(cluster, number):
    cluster.hosts.kill("two")
    cluster.wait(cluster.goes_on(time.monotonic()), BACK_S)
    cluster.hosts.boot("two")
    cluster.wait(cluster.is_whole(time.monotonic()), BACK_S)


def test_training_goes_on_while_a_host_is_cut_off(cluster):
    cut_s = time.monotonic()
    cluster.hosts.cut("two")
    cluster.wait(lambda: time.monotonic() - cut_s > PARTITION_S, PARTITION_S + 10)
    cluster.wait(cluster.goes_on(cut_s + 10.0), BACK_S)
    cluster.hosts.mend("two")
    cluster.wait(cluster.is_whole(time.monotonic()), BACK_S)


def test_training_goes_on_when_the_control_service_is_killed(cluster):
    (gcs,) = cluster.hosts.process_ids("head", "gcs_server")
    killed_s = time.monotonic()
    cluster.hosts.run("head", "kill", "-9", gcs)
    cluster.wait(cluster.is_whole(killed_s), BACK_S)


def test_a_driver_that_dies_with_its_host_leaves_a_sound_checkpoint(cluster):
    assert cluster.watch.checkpoints_lost == 0
    newest = checkpoint.latest(cluster.watch.folder / "checkpoints")
    cluster.hosts.kill("one")
    cluster.driver.wait(timeout=30)
    assert is_newest_save_sound(cluster.watch.folder)
    assert checkpoint.latest(cluster.watch.folder / "checkpoints").env_steps >= newest.env_steps


@pytest.mark.skipif(not IS_FULL, reason="only in the long form: CHAOS=full")
def test_a_training_is_continued_on_another_host(cluster):
    newest = checkpoint.latest(cluster.watch.folder / "checkpoints")
    cluster.train_on("two", "--resume", "auto")
    cluster.wait(lambda: cluster.watch.env_steps > newest.env_steps + 2048, START_S)
    assert f"continuing {newest.path.name}" in cluster.said()
    assert cluster.watch.checkpoints_lost == 0
