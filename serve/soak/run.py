"""Runs a training, a server and the live page of the training together, with clients, and looks.

out/
  runs/training/   the run, with its checkpoints
  models/          the registry; a new champion is published again and again
  logs/            what each program prints
  samples.jsonl    one line for each look, also after a crash
  soak.json        numbers and verdict
  soak.png
"""

import contextlib
import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rlcar.errors import UserError
from rlcar.registry import Registry
from rlcar.runs.metrics_file import MetricsFollower
from rlcar.storage import checkpoint
from rlcar.system.process_usage import folder_bytes, idle_cpu_s, measure
from rlcar.system.programs import free_port, program
from serve.soak.rates import env_step_rates
from serve.soak.sample import Sample
from serve.soak.service import STOP_S, Service, rlcar_command
from serve.soak.traffic import Traffic

RUN = "training"
_START_S = 600.0  # for the first checkpoint, and for each server, on a busy machine
_COMMAND_S = 300.0
_KEPT_VERSIONS = 3  # newest of the registry
_TAIL_BYTES = 65_536


class Plan(NamedTuple):
    """What a soak runs, and for how long."""

    folder: Path
    duration_s: float
    train_arguments: Sequence[str]
    lane: str = "realtime"
    sample_s: float = 5.0
    swap_s: float = 60.0  # between two publications
    seed: int = 0


class Soak:
    """Everything that runs, and the samples so far."""

    def __init__(self, plan: Plan, say: Callable[[str], None], is_over: Callable[[], bool]):
        """`say` prints a line of progress; `is_over` tells whether the user wants to end it."""
        self._plan, self._say, self._is_over = plan, say, is_over
        self.samples: list[Sample] = []
        self.last_error: str | None = None
        self._versions = 0
        self._models = plan.folder / "models"
        self._run = plan.folder / "runs" / RUN
        self._metrics = MetricsFollower(self._run / "metrics.jsonl", _TAIL_BYTES)
        self._row: dict[str, Any] = {}
        self._services: list[Service] = []
        self._traffic: Traffic | None = None  # since when all runs
        self._began_s = self._next_sample_s = 0.0

    def run(self) -> None:
        """Runs until the time of the plan is over, or the user ends it.

        Raises UserError if a part does not start, or ends again and again. Ends all processes.
        """
        plan = self._plan
        with contextlib.ExitStack() as stack:
            training = self._start(stack, "training", self._training())
            self._await(
                "the first checkpoint",
                training,
                lambda: checkpoint.latest(self._run / "checkpoints") is not None,
            )
            self._publish()
            server_port, page_port = free_port(), free_port()
            server = self._start(stack, "server", self._serving(server_port))
            page = self._start(stack, "page", self._watching(page_port))
            for service, port in ((server, server_port), (page, page_port)):
                self._await(service.name, service, partial(_is_ready, port))
            published = Registry(self._models).version("champion")
            observation_size = len(published.metadata["observation"])
            traffic = Traffic(server_port, page_port, observation_size, plan.seed)
            stack.enter_context(traffic.running())
            self._watch(traffic)

    def _training(self) -> list[str]:
        where = ["--name", RUN, "--runs", str(self._run.parent), "--resume", "auto"]
        return ["train", *self._plan.train_arguments, *where]

    def _serving(self, port: int) -> list[str]:
        return ["serve", "--lane", self._plan.lane, "--port", str(port), *self._registry()]

    def _watching(self, port: int) -> list[str]:
        return ["watch", str(self._run), "--port", str(port), *self._registry()]

    def _registry(self) -> list[str]:
        return ["--registry", str(self._models)]

    def _start(self, stack: contextlib.ExitStack, name: str, arguments: Sequence[str]) -> Service:
        self._say(f"starting the {name}")
        service = Service(name, arguments, self._plan.folder)
        self._services.append(stack.enter_context(service))
        return service

    def _await(self, what: str, service: Service, is_there: Callable[[], bool]) -> None:
        end_s = time.monotonic() + _START_S
        while not is_there():
            if self._is_over():
                raise UserError(f"stopped before everything ran: {what} was not there yet")
            if not service.is_running() or time.monotonic() > end_s:
                why = f"{service.name} says: {service.last_line()}; see {service.log}"
                raise UserError(f"{what} did not come within {_START_S:g} s, or failed: {why}")
            time.sleep(0.2)

    def _publish(self) -> None:
        """Publishes the run's policy as the champion, and deletes versions that nobody needs."""
        if not self._command("models", "publish", str(self._run), "--alias", "champion"):
            return
        self._versions += 1
        if self._versions > _KEPT_VERSIONS:
            self._command("models", "retain", "--days", "0", "--newest", str(_KEPT_VERSIONS))

    def _command(self, *words: str) -> bool:
        """Runs a command on the registry; False if the user ended the soak before its end."""
        command, end_s = rlcar_command(*words, *self._registry()), time.monotonic() + _COMMAND_S
        with (
            tempfile.TemporaryFile("w+") as errors,
            program(
                command,
                within_s=STOP_S,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            ) as process,
        ):
            while (code := process.poll()) is None:
                if self._is_over():
                    return False
                self._sample_if_due()
                if time.monotonic() > end_s:
                    raise UserError(f"rlcar {' '.join(words)} took longer than {_COMMAND_S:g} s")
                time.sleep(0.05)
            errors.seek(0)
            if code != 0:
                raise UserError(f"rlcar {' '.join(words)} failed: {errors.read().strip()[-500:]}")
        return True

    def _watch(self, traffic: Traffic) -> None:
        traffic.take()
        self._traffic, self._began_s = traffic, time.monotonic()
        self._next_sample_s = self._began_s + self._plan.sample_s
        next_swap_s = self._began_s + self._plan.swap_s
        while not self._is_over() and time.monotonic() - self._began_s < self._plan.duration_s:
            if time.monotonic() >= next_swap_s:
                next_swap_s = time.monotonic() + self._plan.swap_s
                self._publish()
            self._sample_if_due()
            time.sleep(0.05)

    def _sample_if_due(self) -> None:
        """Takes a sample, also while a new champion is published, but not before all runs."""
        now_s, traffic = time.monotonic(), self._traffic
        if traffic is None or now_s < self._next_sample_s:
            return
        self._next_sample_s = now_s + self._plan.sample_s
        for service in self._services:
            service.start_again_if_ended()
        self.samples.append(self._sample(traffic, now_s - self._began_s))
        with (self._plan.folder / "samples.jsonl").open("a") as file:
            file.write(json.dumps(_tree(self.samples[-1])) + "\n")
        self.last_error = traffic.last_error
        self._report()

    def _sample(self, traffic: Traffic, second: float) -> Sample:
        new = self._metrics.read()
        for row in new.rows if new else ():
            self._row |= row
        groups = {service.name: service.usage() for service in self._services}
        disk_mb = {
            "run": folder_bytes(self._run) / 1e6,
            "registry": folder_bytes(self._models) / 1e6,
            "logs": folder_bytes(self._plan.folder / "logs") / 1e6,
            "Ray": sum(folder_bytes(one.temporary_folder) for one in self._services) / 1e6,
        }
        of_actors = ("cluster/simulator_restarts", "cluster/learner_restarts")
        restarts = sum(service.restarts for service in self._services)
        restarts += sum(int(self._row.get(name) or 0) for name in of_actors)
        return Sample(
            round(second, 2),
            {**groups, "soak itself": measure([os.getpid()])},
            disk_mb,
            idle_cpu_s(),
            self._row.get("env_steps"),
            self._row.get("learner/train_steps"),
            traffic.take(),
            self._versions,
            restarts,
            len(traffic.versions),
        )

    def _report(self) -> None:
        if len(self.samples) % 12 != 1:
            return
        sample = self.samples[-1]
        left_min = max(0.0, self._plan.duration_s - sample.second) / 60.0
        rate = env_step_rates(self.samples)[-1]
        env_steps = "no rate yet" if rate is None else f"{rate.per_s:.0f} env steps/s"
        self._say(
            f"{sample.second / 60:.1f} min: {sample.total('memory_mb'):.0f} MB, "
            f"{sample.total('files'):.0f} files, {sample.total('threads'):.0f} threads, "
            f"{env_steps}, {sample.heard.answers / sample.heard.seconds:.0f} answers/s, "
            f"p99 {sample.heard.p99_ms} ms; {left_min:.1f} min left"
        )


def _is_ready(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://127.0.0.1:{port}/health/live"
    with contextlib.suppress(OSError), opener.open(url, timeout=5.0) as answer:
        return bool(answer.status == 200)
    return False


def _tree(sample: Sample) -> dict[str, Any]:
    groups = {
        name: {**usage._asdict(), "zombies": len(usage.zombies)}
        for name, usage in sample.groups.items()
    }
    return {**sample._asdict(), "groups": groups, "heard": sample.heard._asdict()}
