"""Combines replay buffer, rate limiter and learner: takes trajectories, returns new weights."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.agents import Agent
from rlcar.config import Config, dump_config, load_config
from rlcar.datasets.description import ObservationMoments
from rlcar.devices.data_parallel import over_devices
from rlcar.devices.selection import to_learner
from rlcar.errors import CheckpointError, NonFiniteError
from rlcar.evaluation.statistics import impossible_moments
from rlcar.replay import (
    Replay,
    SamplesPerInsert,
    Slots,
    capacity_in_slots,
    check_memory,
    fields_of,
    host_memory,
    replay_need,
)
from rlcar.replay.device_rings import DeviceRings
from rlcar.rollout.compiled import Episodes, Rollout, episodes_of
from rlcar.runs.metrics import first_non_finite
from rlcar.storage import checkpoint
from rlcar.storage.arrays import Arrays, check_finite, flatten
from rlcar.system import heartbeat
from rlcar.system.when import EverySeconds
from rlcar.types import Batch, Learner, Metrics, Spec, Trajectory, Weights

# Train steps in one compiled call: fewer cost more Python overhead, more delay new weights.
UPDATES_PER_CALL = 8
_POLL_S = 0.1  # how soon a request to stop is noticed during a compilation


class Trainer:
    """Holds the whole state of learning; saves and restores it."""

    def __init__(self, config: Config, spec: Spec, agent: Agent, slots: Slots | None = None):
        """`slots` stores the steps of the replay buffer; None follows the config."""
        self._config = config
        self._learner = agent.learner
        # A fused program stays on the cars' device; sharded updates place their own arrays.
        is_apart = config.training.blocks_per_call == 1 and config.training.learner_devices == 1
        self._place = to_learner if is_apart else lambda state: state
        self._state = self._place(agent.learner.init(config.seed))
        self._update: Any = over_devices(agent.learner.update, config.training.learner_devices)
        replay, block_env_steps = config.replay, config.training.block_length * config.training.cars
        if agent.learner.is_on_policy:  # the buffer holds only the newest block, used once
            replay = replay.model_copy(update={"capacity_env_steps": block_env_steps})
            self._steps_per_update, self.updates_per_call = block_env_steps, 1
            ratio, first = 1.0, 0
        else:
            self._steps_per_update = replay.batch_size * replay.batch_length
            # XLA's convolutions are 8 times slower inside a loop on a CPU; a single train step
            # needs no loop.
            self.updates_per_call = 1 if spec.image_shape else UPDATES_PER_CALL
            ratio, first = replay.samples_per_insert, replay.min_env_steps
        block_length = config.training.block_length
        if slots is None and replay.on_device:
            slots = DeviceRings(spec, block_length, capacity_in_slots(replay, block_length))
        self._replay = Replay(
            replay, spec, block_length, config.seed, slots, agent.policy.carry_size
        )
        self._limiter = SamplesPerInsert(ratio, first)
        self._spec = spec
        self._compiling: threading.Thread | None = None
        self._fused: Any = None
        self._whole_replay_is_due = EverySeconds(config.training.replay_every_s)
        # The newest save with a whole replay, and its mark.
        self._whole: tuple[checkpoint.Save, int] | None = None
        self.env_steps = 0
        self.train_steps = 0

    def compile_ahead(self) -> None:
        """Compiles the train steps in a thread while the first cars drive; `train` waits for it.

        This is for off-policy learners on one CPU device, whose programs do not depend on the
        placement of the first batch. A process that ends meanwhile waits for the thread, after
        everything else, as Python does for every thread that is no daemon.
        """
        config = self._config
        is_one = config.training.blocks_per_call == 1 and config.training.learner_devices == 1
        is_on_cpu = jax.local_devices()[0].platform == "cpu"
        will_train = config.training.env_steps >= config.replay.min_env_steps
        if self._learner.is_on_policy or not (is_one and is_on_cpu and will_train):
            return
        windows = self.updates_per_call, config.replay.batch_size, config.replay.batch_length
        batches = Batch(
            **{
                name: jax.ShapeDtypeStruct((*windows, *shape), dtype)
                for name, (shape, dtype) in fields_of(self._spec).items()
                if name in Batch._fields
            }
        )
        state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self._state)

        def compile_them() -> None:
            with contextlib.suppress(Exception):  # `train` will raise the same error
                self._update.lower(state, batches).compile()  # JAX caches the program

        self._compiling = threading.Thread(target=compile_them, name="compiling")
        self._compiling.start()

    def wait_until_compiled(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Waits until the compilation ahead has ended, or until `should_stop` returns True."""
        if self._compiling is None:
            return
        with heartbeat.stage("compiling"):
            while self._compiling.is_alive() and not should_stop():
                self._compiling.join(_POLL_S)
        if not self._compiling.is_alive():
            self._compiling = None

    def normalise_by(self, moments: ObservationMoments | None) -> None:
        """Makes a learner that normalises observations use the moments of recorded data."""
        if self._learner.with_moments is not None and moments is not None:
            variance = np.square(moments.standard_deviation)
            self._state = self._place(
                self._learner.with_moments(
                    self._state, moments.mean, variance, np.float64(moments.observations)
                )
            )

    def insert(self, trajectory: Trajectory) -> dict[str, float]:
        """Stores a block `[T, N]`; returns the age of its policy as a metric."""
        self._replay.insert(trajectory)
        count = trajectory.reward.size
        self.env_steps += count
        self._limiter.inserted(count)
        # Negative after a return to a checkpoint, for weights that were trained after it.
        lag = max(0.0, self.train_steps - float(np.mean(trajectory.weights_version)))
        return {"rollout/weights_lag_updates": lag}

    def calls_due(self) -> int:
        """Returns how often `train` may be called now, by the samples-per-insert limit."""
        return self._limiter.updates_due(self._steps_per_update * self.updates_per_call)

    def train(self) -> dict[str, float]:
        """Runs `updates_per_call` train steps.

        Raises NonFiniteError, naming the first metric that is not a finite number.
        """
        if self._learner.is_on_policy:
            batches = self._replay.all_blocks()
        else:
            batches = self._replay.sample(self.updates_per_call)
        self.wait_until_compiled()
        with self._nans_named(), heartbeat.stage("learning"):
            self._state, metrics = self._update(self._state, batches)
            self.train_steps += self.updates_per_call
            self._limiter.sampled(self.updates_per_call * self._steps_per_update)
            # JAX dispatches asynchronously and waits for the results only here.
            return self._checked(metrics) | self._replay.metrics(self.train_steps)

    @contextlib.contextmanager
    def _nans_named(self) -> Iterator[None]:
        """Raises NonFiniteError for the FloatingPointError that JAX raises with --debug-nans."""
        try:
            yield
        except FloatingPointError as error:
            first_line = str(error).partition("\n")[0].rstrip(". ")
            raise NonFiniteError(
                f"{first_line} in the train steps after {self.train_steps}"
            ) from error

    def _checked(self, on_device: Metrics) -> dict[str, float]:
        metrics = {name: float(value) for name, value in jax.device_get(on_device).items()}
        bad = first_non_finite(metrics)
        if bad is not None:
            raise NonFiniteError(
                f"{bad} is {metrics[bad]} after {self.train_steps} train steps and "
                f"{self.env_steps} env steps"
            )
        return metrics

    def drive_and_train(self, rollout: Rollout, blocks: int) -> tuple[dict[str, float], Episodes]:
        """Drives and learns from several blocks in one compiled call, for on-policy learners.

        Raises NonFiniteError as `train` does.
        """
        if self._fused is None:
            self._fused = _make_fused(self._learner, rollout.collect_block, blocks)
        with self._nans_named(), heartbeat.stage("learning"):
            self._state, rollout.state, metrics, ended = self._fused(
                self._state, rollout.state, self.train_steps
            )
            episodes = episodes_of(ended)  # JAX waits here
        self.train_steps += blocks
        self.env_steps += episodes.env_steps
        self._limiter.inserted(episodes.env_steps)
        self._limiter.sampled(episodes.env_steps)
        return self._checked(metrics), episodes

    def weights(self) -> Weights:
        """Returns the policy's part of the newest parameters, as NumPy arrays.

        Raises NonFiniteError, so that no car drives with a NaN.
        """
        params = jax.device_get(self._learner.policy_params(self._state))
        check_finite(flatten(params))
        return Weights(self.train_steps, params)

    def save(
        self, folder: Path, meta: dict[str, Any], rollout: dict[str, np.ndarray] | None = None
    ) -> checkpoint.Save:
        """Writes one complete checkpoint; earlier ones stay intact in any case.

        Raises NonFiniteError and CheckpointError.
        """
        extra = {"rollout": rollout} if rollout else {}
        needs = self._replay_to_build_on(folder)
        if needs is None:
            extra["replay"] = self._replay.state()
        else:
            extra["replay_since"] = self._replay.state_since(needs[1])
        own_meta = {
            **meta,
            "train_steps": self.train_steps,
            "seed": self._config.seed,
            "needs": [needs[0].path.name] if needs else [],
        }
        with heartbeat.stage("saving"):
            save = checkpoint.save(
                folder,
                self.env_steps,
                self._saved(),
                config_json=dump_config(self._config),
                meta=own_meta,
                extra_files=extra,
            )
        if needs is None:
            self._whole = (save, self._replay.slots_inserted)
        return save

    def _replay_to_build_on(self, folder: Path) -> tuple[checkpoint.Save, int] | None:
        """Returns the save whose replay a new one can build on, and its mark; or None."""
        if self._whole is None or self._whole_replay_is_due():
            return None
        save, mark = self._whole
        is_there = save.path.parent == folder and save.path.is_dir()
        is_earlier = save.env_steps < self.env_steps
        fresh_env_steps = (self._replay.slots_inserted - mark) * self._config.training.block_length
        is_worth_it = 2 * fresh_env_steps <= self._replay.env_steps_stored
        return self._whole if is_there and is_earlier and is_worth_it else None

    def begin(self, resume: checkpoint.Save | None) -> None:
        """Continues at `resume`, or else begins as `training.start_from` says.

        Raises CheckpointError if the checkpoint does not fit.
        """
        if resume is not None:
            self.restore(resume)
        elif self._config.training.start_from:
            self._start_from(checkpoint.open_save(self._config.training.start_from))

    def _start_from(self, save: checkpoint.Save) -> None:
        """Takes over the learner and the newest steps of another training.

        With its critics and optimizer and with known steps in the replay buffer, the policy does
        not drop when it begins to drive.
        """
        refuse_other_algorithm(save, self._config)
        learner = checkpoint.load(save, self._saved()["learner"], part="learner")
        impossible = impossible_moments(flatten(learner))
        if impossible:
            raise CheckpointError(f"{save.path}: {impossible}")
        self._state = self._place(learner)
        if not self._learner.is_on_policy:
            self._replay.restore(*load_replay(save))
            self._replay.keep_newest(self._config.training.start_env_steps)

    def restore(self, save: checkpoint.Save) -> None:
        """Continues exactly where `save` was written; raises CheckpointError if it does not fit."""
        refuse_other_algorithm(save, self._config)
        saved = checkpoint.load(save, self._saved())
        impossible = impossible_moments(flatten(saved["learner"]))
        if impossible:
            raise CheckpointError(f"{save.path}: {impossible}")
        self._state = self._place(saved["learner"])
        self._limiter.restore(saved["limiter"])
        self._replay.restore(*load_replay(save))
        self._whole = None
        self.env_steps, self.train_steps = save.env_steps, int(save.meta["train_steps"])

    def _saved(self) -> dict[str, Any]:
        # The policy's part is stored twice, because serving and evaluation read only this entry.
        return {
            "learner": self._state,
            "limiter": self._limiter.state(),
            "policy": self._learner.policy_params(self._state),
        }


def check_replay_memory(
    config: Config, spec: Spec, agent: Agent, where: str = "this host"
) -> list[str]:
    """Returns lines for the user that compare the replay buffer with the memory of this host.

    Raises ConfigError if it can never fit. Returns nothing for a buffer on a device, which refuses
    by itself, or for one that holds a single block.
    """
    if agent.learner.is_on_policy or config.replay.on_device:
        return []
    need = replay_need(config, spec, agent.policy.carry_size)
    return check_memory(config, need, host_memory(), where)


def refuse_other_algorithm(save: checkpoint.Save, config: Config) -> None:
    """Raises CheckpointError if the save is of another algorithm than the config."""
    trained = load_config(checkpoint.config_path(save)).algorithm
    if trained != config.algorithm:
        raise CheckpointError(
            f"{save.path} is a checkpoint of {trained}, which {config.algorithm} cannot continue: "
            f"resume it as {trained}, or start a new run without --resume"
        )


def load_replay(save: checkpoint.Save) -> tuple[Arrays, Arrays | None]:
    """Returns a save's whole replay; or that of the save it needs, and the slots inserted since."""
    if not checkpoint.needs(save):
        return checkpoint.map_extra(save, "replay"), None
    (whole,) = checkpoint.needs(save)
    return (
        checkpoint.map_extra(save.path.parent / whole, "replay"),
        checkpoint.map_extra(save, "replay_since"),
    )


def _make_fused(learner: Learner, collect_block: Any, blocks: int) -> Any:
    def run(state: Any, drive: Any, version: jax.Array) -> tuple:
        def block(carry: tuple, _: None) -> tuple[tuple, tuple]:
            state, drive, version = carry
            params = learner.policy_params(state)
            drive, trajectory, ended = collect_block(params, drive, version)
            fields = (name for name in Batch._fields if getattr(trajectory, name) is not None)
            by_car = {name: jnp.swapaxes(getattr(trajectory, name), 0, 1)[None] for name in fields}
            state, metrics = learner.update(state, Batch(**by_car))
            return (state, drive, version + 1), (metrics, ended)

        (state, drive, _), (metrics, ended) = jax.lax.scan(
            block, (state, drive, version), None, length=blocks
        )
        return state, drive, jax.tree.map(jnp.mean, metrics), ended

    return jax.jit(run, donate_argnums=(0, 1))
