"""Three hosts with a Ray cluster on them, and a training that runs there."""

import sys
import time
from pathlib import Path

from cluster.chaos.watch import Watch
from tests.chaos.hosts import RAY_FOLDER

START_S = 180.0
BACK_S = 120.0

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

    def start(self, storage):
        """Boots them; `storage` tells Ray's control service where to keep what it knows."""
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

    def log(self):
        """All that the drivers printed, Ray's own words among it."""
        log = self.folder / "driver.log"
        return log.read_text(errors="replace") if log.exists() else "no driver yet"

    def said(self):
        return self.log()[-3000:]

    def goes_on(self, since_s):
        return lambda: self.watch.is_full_rate(since_s, time.monotonic())

    def is_whole(self, since_s):
        return lambda: self.watch.is_whole and self.goes_on(since_s)()
