"""Kills parts of a running training in random order, and measures the cost."""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ray
from ray._private.state import actors as actor_table
from ray._private.state import jobs as job_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.chaos.report import Kill
from cluster.chaos.watch import RunWatch, is_newest_save_sound
from rlcar.errors import UserError

SIMULATOR, LEARNER = "SimulatorProcess", "LearnerProcess"  # names of their actor classes
# Kind of kill -> actor class and signal; `driver` only for a training that this command started.
KINDS: Mapping[str, tuple[str, signal.Signals]] = {
    "simulator": (SIMULATOR, signal.SIGKILL),
    "hang": (SIMULATOR, signal.SIGSTOP),
    "learner": (LEARNER, signal.SIGKILL),
    "driver": ("", signal.SIGKILL),
}
_POLL_S = 0.1
_KILL_TIMEOUT_S = 30.0
# The kills of a campaign are spread over this share of the training, so that it can recover.
_KILLED_SHARE = 0.97
# Recovery is not awaited while more than this part (one tenth) of the planned kills is overdue.
_OVERDUE_DIVISOR = 10


class DriverProcess(Protocol):
    """The process that runs `rlcar train`; implemented by `TrainingProcess`."""

    @property
    def pid(self) -> int:
        """Process id of the current process."""

    def restart_if_dead(self) -> None:
        """Starts it again if it is dead; raises UserError if it fails again and again."""

    def is_done(self) -> bool:
        """Says whether the training is complete."""

    def kill(self) -> None:
        """Kills it without warning, as a power cut would."""


class KillPlan(NamedTuple):
    """How many kills of which kinds, and for how long."""

    kills: int | None
    minutes: float | None
    kinds: Sequence[str]
    seed: int = 0
    pause_s: float = 3.0  # mean of the random time at full rate between two kills
    recovery_limit_s: float = 180.0
    standstill_limit_s: float = 300.0
    until_env_steps: int | None = (
        None  # spread the kills over the training, even before it recovers
    )


class KillCampaign:
    """One series of kills against one training."""

    def __init__(
        self,
        plan: KillPlan,
        watch: RunWatch,
        driver: DriverProcess | None,
        job: str | None,
        say: Callable[[str], None],
    ):
        unknown = [kind for kind in plan.kinds if kind not in KINDS]
        if unknown or not plan.kinds:
            raise UserError(
                f"unknown kind of kill: {', '.join(unknown)}; the kinds are {', '.join(KINDS)}"
            )
        self._plan, self._watch, self._driver, self._say = plan, watch, driver, say
        self._job = job
        self._random = random.Random(plan.seed)
        self._kinds = [kind for kind in plan.kinds if kind != "driver" or driver is not None]
        if not self._kinds:
            raise UserError(
                "the driver of a training that was started elsewhere cannot be killed: name other "
                "kinds"
            )
        self._next_kinds: list[str] = []  # the next is the last
        self._killed_actor_ids: list[str] = []  # the newest is the last
        self._killed_s = 0.0
        self._due = due_env_steps(plan, self._random)
        self.kills: list[Kill] = []
        self.started_s = time.monotonic()

    def run(self, should_stop: Callable[[], object]) -> None:
        """Kills until the plan is fulfilled, `should_stop` is true, or the training ends."""
        if not self._measure_undisturbed_rate(should_stop):
            return
        while not should_stop() and not self._is_fulfilled():
            self._wait_for_turn(should_stop)
            kill = None if self._is_fulfilled() or should_stop() else self._kill_next()
            if kill is None:
                continue  # no process to kill yet: they are being started
            self.kills.append(kill)
            self._await_recovery(kill, should_stop)
            self._say(kill.describe(len(self.kills), self._plan.kills))

    def _is_fulfilled(self) -> bool:
        plan, minutes = self._plan, (time.monotonic() - self.started_s) / 60
        return (
            self._is_done()
            or (plan.kills is not None and len(self.kills) >= plan.kills)
            or (plan.minutes is not None and minutes >= plan.minutes)
        )

    def _is_done(self) -> bool:
        return self._driver is not None and self._driver.is_done()

    def _poll(self) -> None:
        time.sleep(_POLL_S)
        if self._driver is not None:
            self._driver.restart_if_dead()
        self._watch.update(time.monotonic())
        self._check_progress()

    def _wait_for_turn(self, should_stop: Callable[[], object]) -> None:
        if not self._due:
            self._sleep(self._random.expovariate(1.0 / self._plan.pause_s), should_stop)
            return
        while not self._is_next_due() and not should_stop() and not self._is_done():
            self._poll()

    def _check_progress(self) -> None:
        progress_s = max(self._watch.progress_s or 0.0, self.started_s)
        if time.monotonic() - progress_s > self._plan.standstill_limit_s:
            raise UserError(
                f"{self._watch.folder} made no progress for {self._plan.standstill_limit_s:.0f} s "
                f"after {len(self.kills)} kills"
            )

    def _sleep(self, seconds: float, should_stop: Callable[[], object]) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s and not should_stop() and not self._is_done():
            self._poll()

    def _measure_undisturbed_rate(self, should_stop: Callable[[], object]) -> bool:
        """Measures the undisturbed rate; returns False if it had to stop before."""
        while self._watch.undisturbed_rate() is None:
            self._sleep(self._watch.window_s, should_stop)
            if self._watch.do_all_deliver:
                self._watch.add_undisturbed_window(time.monotonic())
            if should_stop() or self._is_done():
                return False
        return True

    def _kill_next(self) -> Kill | None:
        """Kills one process of the next kind; returns None if there is none."""
        if not self._next_kinds:  # a new round with each kind once
            self._next_kinds = self._random.sample(self._kinds, len(self._kinds))
        kind = self._next_kinds[-1]
        env_steps = self._watch.env_steps
        if kind == "driver":
            assert self._driver is not None
            pid = self._driver.pid
            self._driver.kill()
        else:
            class_name, number = KINDS[kind]
            targets = self._targets(class_name)
            self._poll()
            if not targets:
                return None
            new = [actor for actor in targets if actor["ActorID"] not in self._killed_actor_ids]
            target = self._random.choice(new or targets)
            pid = target["Pid"]
            self._killed_actor_ids.append(target["ActorID"])
            if not _signal_on(target["Address"]["NodeID"], pid, number):
                return None  # it died before this signal
        self._next_kinds.pop()
        self._killed_s = time.monotonic()
        kill = Kill(kind, pid, self._killed_s - self.started_s, env_steps)
        kill.is_save_sound = is_newest_save_sound(self._watch.folder)
        return kill

    def _targets(self, class_name: str) -> list[dict[str, Any]]:
        job = self._job if self._driver is None else job_of_driver(self._driver.pid)
        return [] if job is None else alive_actors(class_name, job)

    def _await_recovery(self, kill: Kill, should_stop: Callable[[], object]) -> None:
        """Waits for full rate with all simulators, or until too many other kills are overdue."""
        checkpoints_lost, env_steps_lost = self._watch.checkpoints_lost, self._watch.env_steps_lost
        complete_since_s: float | None = None  # since when all simulators deliver
        while not should_stop() and not self._is_done():
            self._poll()
            now_s = time.monotonic()
            # For seconds after a kill, blocks of the killed simulator still come out of queues.
            is_complete = self._watch.do_all_deliver and not self._is_alive(kill)
            complete_since_s = (complete_since_s or now_s) if is_complete else None
            if complete_since_s is not None and self._watch.is_full_rate(self._killed_s, now_s):
                began_s = max(complete_since_s, now_s - self._watch.window_s)
                kill.recovery_s = began_s - self._killed_s
                self._watch.add_undisturbed_window(now_s)
                break
            if now_s - self._killed_s > self._plan.recovery_limit_s or self._is_late():
                break
        kill.checkpoints_lost = self._watch.checkpoints_lost - checkpoints_lost
        kill.env_steps_lost = self._watch.env_steps_lost - env_steps_lost

    def _is_alive(self, kill: Kill) -> bool:
        """Says whether Ray still lists the killed process as alive."""
        class_name, _ = KINDS[kill.kind]
        alive = self._targets(class_name) if class_name else []
        return any(actor["ActorID"] == self._killed_actor_ids[-1] for actor in alive)

    def _is_next_due(self) -> bool:
        number = len(self.kills)
        return number < len(self._due) and self._watch.env_steps >= self._due[number]

    def _is_late(self) -> bool:
        """Says whether so many kills are overdue that recovery is not awaited."""
        if not self._due:
            return False
        most_overdue = len(self._due) // _OVERDUE_DIVISOR
        late = min(len(self.kills) + most_overdue, len(self._due) - 1)
        return self._watch.env_steps >= self._due[late]


def due_env_steps(plan: KillPlan, rng: random.Random) -> list[float]:
    """Returns the env steps at which each kill is due.

    Divides the training, except for its end, into equal parts with one random kill each.
    """
    if plan.until_env_steps is None or plan.kills is None:
        return []
    part = _KILLED_SHARE * plan.until_env_steps / plan.kills
    return [(number + rng.random()) * part for number in range(plan.kills)]


def alive_actors(class_name: str, job: str) -> list[dict[str, Any]]:
    """Returns the living actors of a class in one job, in a fixed order for seeded choices."""
    table = actor_table(job_id=ray.JobID.from_hex(job), actor_state_name="ALIVE")
    found = [actor for actor in table.values() if actor["ActorClassName"].endswith(class_name)]
    return sorted(found, key=lambda actor: actor["ActorID"])


def job_of_driver(pid: int) -> str | None:
    """Returns the Ray job of a driver process on this machine; None if it has none."""
    here = ray.util.get_node_ip_address()
    for job in job_table():
        is_here = job["DriverIPAddress"] in (here, "127.0.0.1")
        if job["DriverPid"] == pid and is_here and not job["IsDead"]:
            return str(job["JobID"])
    return None


def only_training_job() -> str:
    """Returns the only training job of the cluster; raises UserError for none or several."""
    running = [job for job in job_table() if not job["IsDead"]]
    trainings = [job for job in running if alive_actors(LEARNER, job["JobID"])]
    if len(trainings) != 1:
        names = "; ".join(f"{job['JobID']}: {job['Entrypoint']}" for job in trainings)
        raise UserError(
            f"{len(trainings)} trainings are running in this cluster ({names}): name one with --job"
            if trainings
            else "no training is running in this cluster: leave out --run to start one"
        )
    return str(trainings[0]["JobID"])


def _signal_on(node: str, pid: int, number: signal.Signals) -> bool:
    if node == ray.get_runtime_context().get_node_id():
        return send_signal(pid, number)
    on_node = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(send_signal)
    try:
        sent = task.options(scheduling_strategy=on_node).remote(pid, number)
        return bool(ray.get(sent, timeout=_KILL_TIMEOUT_S))
    except ray.exceptions.RayError:
        return False


def send_signal(pid: int, number: int) -> bool:
    """Signals a process if it is a worker of Ray, as its process id may have been reused."""
    try:
        if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            return False
        os.kill(pid, number)
    except OSError:
        return False
    return True
