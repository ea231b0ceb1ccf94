"""Kills parts of a running training in random order, and measures what that costs it."""

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
from cluster.chaos.watch import Watch, is_newest_save_sound
from rlcar.errors import UserError

SIMULATOR, LEARNER = "SimulatorProcess", "LearnerProcess"
# What is done to whom; `driver` only where the training was started here.
KINDS: Mapping[str, tuple[str, signal.Signals]] = {
    "simulator": (SIMULATOR, signal.SIGKILL),
    "hang": (SIMULATOR, signal.SIGSTOP),
    "learner": (LEARNER, signal.SIGKILL),
    "driver": ("", signal.SIGKILL),
}
_TICK_S = 0.1
_KILL_TIMEOUT_S = 30.0


class Driver(Protocol):
    """The process that runs `rlcar train`, kept alive by whoever started it."""

    @property
    def pid(self) -> int:
        """Of the process that runs now."""

    def tend(self) -> None:
        """Starts it again if it is dead; raises UserError when that is no use."""

    def is_done(self) -> bool:
        """Whether the training has come to its own end."""

    def kill(self) -> None:
        """Ends it as a power cut would."""


class Plan(NamedTuple):
    """How much, for how long, and what."""

    kills: int | None
    minutes: float | None
    kinds: Sequence[str]
    seed: int = 0
    pause_s: float = 3.0  # the mean of the random time at full rate between two kills
    recovery_limit_s: float = 180.0
    standstill_limit_s: float = 300.0
    until_env_steps: int | None = None  # spreads the kills over it, recovered or not


class Chaos:
    """One campaign against one training."""

    def __init__(
        self,
        plan: Plan,
        watch: Watch,
        driver: Driver | None,
        job: str | None,
        say: Callable[[str], None],
    ):
        unknown = [kind for kind in plan.kinds if kind not in KINDS]
        if unknown or not plan.kinds:
            raise UserError(f"no such kill: {', '.join(unknown)}; there are {', '.join(KINDS)}")
        self._plan, self._watch, self._driver, self._say = plan, watch, driver, say
        self._job = job
        self._random = random.Random(plan.seed)
        self._kinds = [kind for kind in plan.kinds if kind != "driver" or driver is not None]
        if not self._kinds:
            raise UserError("the driver of a training that was started elsewhere is left alone")
        self._deck: list[str] = []
        self._struck: list[str] = []  # ids of actors, the last at the end
        self._killed_s = 0.0
        self._due = due_env_steps(plan, self._random)
        self.kills: list[Kill] = []
        self.started_s = time.monotonic()

    def run(self, should_stop: Callable[[], object]) -> None:
        """Kills until the plan is fulfilled, `should_stop`, or the training ends."""
        if not self._wait_until_calm(should_stop):
            return
        while not should_stop() and not self._is_fulfilled():
            self._wait_for_turn(should_stop)
            kill = None if self._is_fulfilled() or should_stop() else self._strike()
            if kill is None:
                continue  # nobody to kill yet: everything is being started
            self.kills.append(kill)
            self._await_recovery(kill, should_stop)
            self._say(kill.sentence(len(self.kills), self._plan.kills))

    def _is_fulfilled(self) -> bool:
        plan, minutes = self._plan, (time.monotonic() - self.started_s) / 60
        return (
            self._is_done()
            or (plan.kills is not None and len(self.kills) >= plan.kills)
            or (plan.minutes is not None and minutes >= plan.minutes)
        )

    def _is_done(self) -> bool:
        return self._driver is not None and self._driver.is_done()

    def _tick(self) -> None:
        time.sleep(_TICK_S)
        if self._driver is not None:
            self._driver.tend()
        self._watch.look(time.monotonic())
        self._refuse_standstill()

    def _wait_for_turn(self, should_stop: Callable[[], object]) -> None:
        if not self._due:
            self._rest(self._random.expovariate(1.0 / self._plan.pause_s), should_stop)
            return
        while not self._is_next_due() and not should_stop() and not self._is_done():
            self._tick()

    def _refuse_standstill(self) -> None:
        moved_s = max(self._watch.moved_s or 0.0, self.started_s)
        if time.monotonic() - moved_s > self._plan.standstill_limit_s:
            raise UserError(
                f"{self._watch.folder} made no progress for {self._plan.standstill_limit_s:.0f} s "
                f"after {len(self.kills)} kills"
            )

    def _rest(self, seconds: float, should_stop: Callable[[], object]) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s and not should_stop() and not self._is_done():
            self._tick()

    def _wait_until_calm(self, should_stop: Callable[[], object]) -> bool:
        """Measures the usual rate, before anything is killed."""
        while self._watch.usual_rate() is None:
            self._rest(self._watch.window_s, should_stop)
            if self._watch.is_whole:
                self._watch.note_calm(time.monotonic())
            if should_stop() or self._is_done():
                return False
        return True

    def _strike(self) -> Kill | None:
        if not self._deck:  # each kind as often as the others
            self._deck = self._random.sample(self._kinds, len(self._kinds))
        kind = self._deck[-1]
        env_steps = self._watch.env_steps
        if kind == "driver":
            assert self._driver is not None
            pid = self._driver.pid
            self._driver.kill()
        else:
            class_name, number = KINDS[kind]
            victims = self._victims(class_name)
            self._tick()
            if not victims:
                return None
            fresh = [one for one in victims if one["ActorID"] not in self._struck]
            victim = self._random.choice(fresh or victims)
            pid = victim["Pid"]
            self._struck.append(victim["ActorID"])
            if not _signal_on(victim["Address"]["NodeID"], pid, number):
                return None  # it died of itself, or of the kill before
        self._deck.pop()
        self._killed_s = time.monotonic()
        kill = Kill(kind, pid, self._killed_s - self.started_s, env_steps)
        kill.is_save_sound = is_newest_save_sound(self._watch.folder)
        return kill

    def _victims(self, class_name: str) -> list[dict[str, Any]]:
        job = self._job if self._driver is None else job_of_driver(self._driver.pid)
        return [] if job is None else alive_actors(class_name, job)

    def _await_recovery(self, kill: Kill, should_stop: Callable[[], object]) -> None:
        """Waits for full rate with everybody there, or until too many other kills are overdue."""
        checkpoints_lost, env_steps_lost = self._watch.checkpoints_lost, self._watch.env_steps_lost
        whole_s: float | None = None  # since when everybody is there
        while not should_stop() and not self._is_done():
            self._tick()
            now_s = time.monotonic()
            # What waits in queues is delivered for seconds after its simulator's death.
            is_whole = self._watch.is_whole and not self._is_alive(kill)
            whole_s = (whole_s or now_s) if is_whole else None
            if whole_s is not None and self._watch.is_full_rate(self._killed_s, now_s):
                began_s = max(whole_s, now_s - self._watch.window_s)
                kill.recovery_s = began_s - self._killed_s
                self._watch.note_calm(now_s)
                break
            if now_s - self._killed_s > self._plan.recovery_limit_s or self._is_late():
                break
        kill.checkpoints_lost = self._watch.checkpoints_lost - checkpoints_lost
        kill.env_steps_lost = self._watch.env_steps_lost - env_steps_lost

    def _is_alive(self, kill: Kill) -> bool:
        """Whether the driver still counts on what was killed."""
        class_name, _ = KINDS[kill.kind]
        alive = self._victims(class_name) if class_name else []
        return any(one["ActorID"] == self._struck[-1] for one in alive)

    def _is_next_due(self) -> bool:
        number = len(self.kills)
        return number < len(self._due) and self._watch.env_steps >= self._due[number]

    def _is_late(self) -> bool:
        """Whether a tenth of the kills is overdue: then nobody's recovery is waited for."""
        if not self._due:
            return False
        late = min(len(self.kills) + len(self._due) // 10, len(self._due) - 1)
        return self._watch.env_steps >= self._due[late]


def due_env_steps(plan: Plan, rng: random.Random) -> list[float]:
    """When each kill is due: at random within equal parts of the training, not its end."""
    if plan.until_env_steps is None or plan.kills is None:
        return []
    part = 0.97 * plan.until_env_steps / plan.kills
    return [(number + rng.random()) * part for number in range(plan.kills)]


def alive_actors(class_name: str, job: str) -> list[dict[str, Any]]:
    """The living actors of a class in one job, in an order that a seed can choose from."""
    table = actor_table(job_id=ray.JobID.from_hex(job), actor_state_name="ALIVE")
    found = [one for one in table.values() if one["ActorClassName"].endswith(class_name)]
    return sorted(found, key=lambda one: one["ActorID"])


def job_of_driver(pid: int) -> str | None:
    """The job of a driver on this machine."""
    here = ray.util.get_node_ip_address()
    for job in job_table():
        is_here = job["DriverIPAddress"] in (here, "127.0.0.1")
        if job["DriverPid"] == pid and is_here and not job["IsDead"]:
            return str(job["JobID"])
    return None


def only_training_job() -> str:
    """The one job of the cluster that trains; raises UserError for none and for several."""
    running = [job for job in job_table() if not job["IsDead"]]
    trainings = [job for job in running if alive_actors(LEARNER, job["JobID"])]
    if len(trainings) != 1:
        names = "; ".join(f"{job['JobID']}: {job['Entrypoint']}" for job in trainings)
        raise UserError(
            f"{len(trainings)} trainings run in this cluster ({names}): name one with --job"
            if trainings
            else "no training runs in this cluster: leave out --run to start one"
        )
    return str(trainings[0]["JobID"])


def _signal_on(node: str, pid: int, number: signal.Signals) -> bool:
    if node == ray.get_runtime_context().get_node_id():
        return send_signal(pid, number)
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(send_signal)
    try:
        sent = task.options(scheduling_strategy=there).remote(pid, number)
        return bool(ray.get(sent, timeout=_KILL_TIMEOUT_S))
    except ray.exceptions.RayError:
        return False


def send_signal(pid: int, number: int) -> bool:
    """Signals a process if it is a worker of Ray: a process id may have been given anew."""
    try:
        if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            return False
        os.kill(pid, number)
    except OSError:
        return False
    return True
