"""Three hosts with a Ray cluster on them, and a training that runs there."""

import subprocess
import sys
import time
from pathlib import Path

from cluster.chaos.watch import RunWatch
from tests.chaos.hosts import RAY_FOLDER

START_S = 180.0
BACK_S = 120.0

# Waits until three nodes are alive: arguments are the address and the port of the control service.
# At a closed port Ray itself would retry for long, and before the raylet of this host is there, it
# fails.
JOINED = """
import socket, sys, time
import ray
host, port = sys.argv[1:]
while not ray.is_initialized():
    try:
        socket.create_connection((host, int(port)), 1.0).close()
        ray.init(f"{host}:{port}", log_to_driver=False)
    except Exception:
        time.sleep(0.2)
while sum(node["Alive"] for node in ray.nodes()) < 3:
    time.sleep(0.2)
"""
RAY = str(Path(sys.executable).with_name("ray"))
PORT = 6379
TRAINING = [
    *("train", "--mode", "test", "--simulators", "2", "--name", "run"),
    *("--cluster", "simulator_deadline_s=10"),
    *("--set", "training.env_steps=100000000", "--set", "training.checkpoint_every_s=2"),
    *("--set", "training.log_every_s=0.2", "--set", "training.evaluate_every_env_steps=100000000"),
]


class Cluster:
    """The hosts, the training, and its progress."""

    def __init__(self, hosts, folder):
        self.hosts, self.folder = hosts, folder
        self.watch = RunWatch(folder / "runs" / "run", window_s=2.0)
        self.addresses = {name: hosts.add(name) for name in ("head", "one", "two")}
        self.driver = None

    def start(self, storage):
        """Boots the hosts; `storage` configures the storage of Ray's control service."""
        environment = storage | {
            "HOME": str(self.folder),
            "RAY_TMPDIR": RAY_FOLDER,
            "RAY_AUTH_MODE": "disabled",
            "RAY_worker_niceness": "0",
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
        self.wait(lambda: self.watch.do_all_deliver, START_S)
        self.wait(lambda: self.watch.add_undisturbed_window(time.monotonic()), START_S)

    def train_on(self, name, *more):
        head = self.addresses["head"]
        command = [sys.executable, "-m", "rlcar.cli", *TRAINING, *more]
        command += ["--address", f"{head}:{PORT}", "--runs", str(self.folder / "runs")]
        self.driver = self.hosts.popen(name, command, self.folder / "driver.log")

    def is_joined(self):
        try:
            self.hosts.run("one", sys.executable, "-c", JOINED, self.addresses["head"], str(PORT))
        except (subprocess.SubprocessError, RuntimeError):
            return False  # not within the time limit of a command
        return True

    def wait(self, question, limit_s):
        """Waits until `question` is true, and follows the run meanwhile; returns the seconds."""
        began_s = time.monotonic()
        while not question():
            if self.driver is not None:
                assert self.driver.poll() is None, self.end_of_log()
            assert time.monotonic() - began_s < limit_s, (
                f"not within {limit_s} s\n{self.end_of_log()}"
            )
            time.sleep(0.1)
            self.watch.update(time.monotonic())
        return time.monotonic() - began_s

    def log(self):
        """Returns all that the drivers and Ray printed."""
        log = self.folder / "driver.log"
        return log.read_text(errors="replace") if log.exists() else "no driver yet"

    def end_of_log(self):
        return self.log()[-3000:]

    def is_training(self, since_s):
        return lambda: self.watch.is_full_rate(since_s, time.monotonic())

    def has_recovered(self, since_s):
        return lambda: self.watch.do_all_deliver and self.is_training(since_s)()
