"""Exported policies act like the served policy over whole races, for every algorithm."""

import ctypes
import functools
import shutil
import subprocess
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from rlcar.agents import ALGORITHMS
from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.registry.portable import c_file
from rlcar.registry.portable.c_file import c_bytes
from rlcar.registry.portable.export import recorded
from rlcar.registry.portable.onnx_file import onnx_bytes
from rlcar.registry.portable.recording import Graph
from rlcar.sim import make_race
from rlcar.track import make_pool
from rlcar.types import Spec
from serve.policy.policy import make_policy
from tests.support.trained_like import model_of, trained_like

CARS, STEPS = 4, 240
CONFIGS = {
    **{name: make_config(algorithm.default_preset) for name, algorithm in ALGORITHMS.items()},
    "dreamer, size1m": make_config("small"),
    "dreamer, no memory": make_config("nano", overrides=["dreamer.world_model.has_memory=false"]),
    "ppo, recurrent": make_config("recurrent-ppo"),
}
COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler `cc`")


class Drive(NamedTuple):
    """What a served policy saw and did in races, and the same policy as a graph."""

    graph: Graph
    observations: np.ndarray  # [T, N, F]
    is_first: np.ndarray  # [T, N]
    actions: np.ndarray  # [T, N, A]


@functools.cache
def _race():
    """Short races of CARS cars, compiled once for all policies."""
    rules = make_config().race.model_copy(update={"time_limit_steps": 100})
    race = make_race(rules, make_pool(range(CARS), rules.track))
    return race.reset, jax.jit(race.step)


@functools.cache
def _drive(name: str) -> Drive:
    config = CONFIGS[name]
    model = model_of(config, trained_like(config))
    policy, (reset, step) = make_policy(model), _race()
    state, time_step = reset(jnp.arange(CARS, dtype=jnp.int32), 0)
    memory, seen = policy.initial_state(CARS), []
    for _ in range(STEPS):
        observation, is_first = np.asarray(time_step.observation), np.asarray(time_step.is_first)
        action, memory = policy.act(memory, observation, is_first)
        seen.append((observation, is_first, action))
        # Always accelerates: policies with random parameters tend to stand still.
        state, time_step, _ = step(state, np.stack([action[:, 0], np.abs(action[:, 1])], axis=1))
    drive = Drive(recorded(model), *map(np.stack, zip(*seen, strict=True)))
    assert drive.is_first.sum() >= 2 * CARS
    assert np.ptp(drive.actions) > 0.5
    return drive


def _session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", CONFIGS)
def test_an_onnx_model_acts_like_the_served_policy(name):
    drive = _drive(name)
    session = _session(onnx_bytes(drive.graph, {}))
    shapes = {entry.name: entry.shape for entry in session.get_inputs()}
    assert shapes.pop("observation") == ["batch", 6]
    answered = {entry.name: entry.shape for entry in session.get_outputs()}
    assert answered.pop("action") == ["batch", 2]
    assert answered == {f"next_{name}": shape for name, shape in shapes.items()}
    state = {name: np.zeros((CARS, width), np.float32) for name, (_, width) in shapes.items()}
    for observation, is_first, wanted in zip(*drive[1:], strict=True):
        for part in state.values():
            part[is_first] = 0.0
        action, *following = session.run(None, {"observation": observation, **state})
        state = dict(zip(state, following, strict=True))
        np.testing.assert_allclose(action, wanted, rtol=0, atol=1e-5)


class CPolicy:
    """A compiled policy, loaded into this process."""

    def __init__(self, source: bytes, folder, *options: str):
        (folder / "policy.c").write_bytes(source)
        strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
        command = [COMPILER, *strict, *options, "-shared", "-fPIC", "-o", "policy.so", "policy.c"]
        subprocess.run([*command, "-lm"], cwd=folder, check=True)
        self._library = ctypes.CDLL(str(folder / "policy.so"))

    def begin(self, state: np.ndarray) -> None:
        self._library.rlcar_policy_init(_pointer(state))

    def act(self, state: np.ndarray, observation: np.ndarray, action: np.ndarray) -> int:
        return self._library.rlcar_policy_act(*map(_pointer, (state, observation, action)))


def _pointer(array: np.ndarray):
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


@needs_compiler
@pytest.mark.parametrize(
    "name",
    [
        # The compiler needs seconds for this one.
        pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long] if "size1m" in name else [])
        for name in CONFIGS
    ],
)
def test_a_c_file_acts_like_the_served_policy(name, tmp_path):
    drive = _drive(name)
    policy = CPolicy(c_bytes(drive.graph, {}), tmp_path, "-O1")
    size = sum(value.example.size for value in drive.graph.state)
    states = np.full((CARS, max(size, 1)), 7.0, np.float32)  # init overwrites what was there
    action = np.zeros(2, np.float32)
    for observation, is_first, wanted in zip(*drive[1:], strict=True):
        for car in range(CARS):
            if is_first[car]:
                policy.begin(states[car])
            assert policy.act(states[car], observation[car], action) == 0
            np.testing.assert_allclose(action, wanted[car], rtol=0, atol=1e-5)


@needs_compiler
def test_a_c_file_answers_a_number_that_is_not_finite_with_an_error(tmp_path):
    drive = _drive("ppo, recurrent")
    policy = CPolicy(c_bytes(drive.graph, {}), tmp_path, "-O0")
    (memory,) = drive.graph.state
    state, action = np.ones(memory.example.size, np.float32), np.full(2, 0.5, np.float32)
    assert policy.act(state, np.array([0, 0, np.nan, 0, 0, 0], np.float32), action) == 1
    np.testing.assert_array_equal(state, 1.0)
    np.testing.assert_array_equal(action, 0.5)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_policies_of_other_environments_have_their_sizes(name):
    """Pendulum has three numbers to observe and one to act with."""
    algorithm = ALGORITHMS[name]
    preset = algorithm.gymnasium_preset or algorithm.default_preset
    config = make_config(preset, "test", environment="Pendulum-v1")
    spec = Spec(observation_size=3, action_size=1)
    model = model_of(config, trained_like(config, spec=spec), spec)
    session = _session(onnx_bytes(recorded(model), {}))
    seen = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    inputs = {entry.name: entry.shape for entry in session.get_inputs()}
    inputs = {name: np.zeros((5, width), np.float32) for name, (_, width) in inputs.items()}
    action = session.run(["action"], inputs | {"observation": seen})[0]
    policy = make_policy(model)
    wanted, _ = policy.act(policy.initial_state(5), seen, np.ones(5, bool))
    np.testing.assert_allclose(action, wanted, rtol=0, atol=1e-5)


def test_a_policy_that_is_too_large_for_a_c_file_is_refused(monkeypatch):
    monkeypatch.setattr(c_file, "MAX_NUMBERS", 1000)
    with pytest.raises(
        UserError, match=r"has [\d,]+ numbers, more than the 1,000 .* --format onnx"
    ):
        c_bytes(_drive("ppo").graph, {})


def test_a_policy_that_sees_images_is_refused():
    config = make_config(environment="rlcar/Catch-v0")
    with pytest.raises(UserError, match=r"acts in rlcar/Catch-v0 .*: only policies with numeric"):
        recorded(model_of(config, {}, Spec(3, 1)))
