"""How many microseconds does an exported policy need per action, beside the one that servers run?

The same policy acts for one car in three forms: in NumPy, which servers run; as an ONNX model in
onnxruntime with one thread, called from Python; and as C, compiled with `cc -O3` for any processor
of this kind. They take turns, and the fastest of many calls counts. First the policy in NumPy
drives races, and the largest difference of the others' actions is printed. The parameters are
random, and as large as those of trained policies.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as rlcar serve has it
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import ctypes
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime
from header import origin, print_header

from rlcar.agents import ALGORITHMS
from rlcar.config import make_config
from rlcar.config.schema import schema_of_race
from rlcar.registry import Model, Version
from rlcar.registry.architecture import policy_shapes
from rlcar.registry.portable.c_file import c_bytes
from rlcar.registry.portable.export import recorded
from rlcar.registry.portable.onnx_file import onnx_bytes
from rlcar.registry.portable.recording import Graph
from rlcar.sim import SPEC, make_race
from rlcar.track import make_pool
from serve.policy.policy import NumpyPolicy, make_policy

RESULT = Path(__file__).parent / "results" / "portable_policies.json"
PRESETS = (
    *(algorithm.default_preset for algorithm in ALGORITHMS.values()),
    *("recurrent-ppo", "small"),
)
ROUNDS, CALLS, RACE_STEPS = 10, 300, 400
# Times calls inside C, because a call from Python costs more than some policies.
_TIMER = """
#include <time.h>
double fastest_us(struct rlcar_policy *policy, const float *observation, float *action, int calls) {
    double fastest = 1e9;
    for (int call = 0; call < calls; call++) {
        struct timespec began, ended;
        clock_gettime(CLOCK_MONOTONIC, &began);
        rlcar_policy_act(policy, observation, action);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        double us = 1e6 * (ended.tv_sec - began.tv_sec) + 1e-3 * (ended.tv_nsec - began.tv_nsec);
        if (us < fastest) fastest = us;
    }
    return fastest;
}
"""


class Onnx:
    """The policy of one car in onnxruntime."""

    def __init__(self, data: bytes):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(data, options, providers=providers)
        self.begin()

    def begin(self) -> None:
        """Begins an episode."""
        self._state = {
            entry.name: np.zeros((1, entry.shape[1]), np.float32)
            for entry in self._session.get_inputs()
            if entry.name != "observation"
        }

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Maps `[1, F]` to `[1, A]`, and keeps the state."""
        answers = self._session.run(None, {"observation": observation, **self._state})
        self._state = dict(zip(self._state, answers[1:], strict=True))
        return answers[0]

    def fastest_us(self, observation: np.ndarray) -> float:
        """Returns the microseconds of the fastest call."""
        inputs = {"observation": observation, **self._state}
        return fastest_us(lambda: self._session.run(None, inputs))


class Compiled:
    """The policy of one car in C."""

    def __init__(self, source: bytes, graph: Graph, folder: Path):
        (folder / "policy.c").write_bytes(source + _TIMER.encode())
        began_s = time.perf_counter()
        command = "cc -O3 -std=gnu99 -shared -fPIC -o policy.so policy.c -lm"
        subprocess.run(command.split(), cwd=folder, check=True)
        self.compile_s = time.perf_counter() - began_s
        self._library = ctypes.CDLL(str(folder / "policy.so"))
        self._library.fastest_us.restype = ctypes.c_double
        size = sum(value.example.size for value in graph.state)
        self._state = np.zeros(max(size, 1), np.float32)
        self._action = np.zeros_like(graph.action.example)

    def begin(self) -> None:
        """Begins an episode."""
        self._library.rlcar_policy_init(_pointer(self._state))

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Maps `[1, F]` to `[1, A]`, and keeps the state."""
        arrays = (self._state, observation, self._action)
        assert self._library.rlcar_policy_act(*map(_pointer, arrays)) == 0
        return self._action

    def fastest_us(self, observation: np.ndarray) -> float:
        """Returns the microseconds of the fastest call."""
        arrays = (self._state, observation, self._action)
        return self._library.fastest_us(*map(_pointer, arrays), CALLS)


def _pointer(array: np.ndarray) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def fastest_us(act: Callable[[], Any]) -> float:
    """Returns the shortest of `CALLS` calls, in microseconds."""
    times_s = []
    for _ in range(CALLS):
        began_s = time.perf_counter()
        act()
        times_s.append(time.perf_counter() - began_s)
    return 1e6 * min(times_s)


def race_of_one() -> tuple[Callable, Callable]:
    """Returns `reset` and `step` of races of one car, compiled."""
    rules = make_config().race.model_copy(update={"time_limit_steps": 150})
    race = make_race(rules, make_pool(range(1), rules.track))
    return race.reset, jax.jit(race.step)


def largest_difference(
    race: tuple[Callable, Callable], policy: NumpyPolicy, others: tuple[Onnx, Compiled]
) -> float:
    """Returns the largest difference of an action over `RACE_STEPS` steps of races."""
    reset, step = race
    state, time_step = reset(np.zeros(1, np.int32), 0)
    memory, largest = policy.initial_state(1), 0.0
    for _ in range(RACE_STEPS):
        observation, is_first = np.asarray(time_step.observation), np.asarray(time_step.is_first)
        action, memory = policy.act(memory, observation, is_first)
        for other in others:
            if is_first[0]:
                other.begin()
            largest = max(largest, float(np.abs(other.act(observation) - action).max()))
        # Always accelerates: policies with random parameters tend to stand still.
        state, time_step, _ = step(state, np.array([[action[0, 0], 0.5]], np.float32))
    return largest


def draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an array of a policy: a bias, a positive scale, or weights by their inputs."""
    if name.endswith(".b"):
        return (0.3 * rng.normal(size=shape)).astype(np.float32)
    if len(shape) < 2:
        return (0.5 + rng.random(shape)).astype(np.float32)
    return (1.5 / shape[-2] ** 0.5 * rng.normal(size=shape)).astype(np.float32)


def measure(preset: str, race: tuple[Callable, Callable], folder: Path) -> dict[str, float]:
    """Returns the figures of one policy."""
    config = make_config(preset)
    observation, action = schema_of_race(config)
    about = {"config": config.model_dump(), "observation": observation, "action": action}
    rng = np.random.default_rng(0)
    shapes = policy_shapes(config, SPEC)
    arrays = {name: draw(rng, name, shape) for name, shape in shapes.items()}
    model = Model(Version(0, "", about, {}), arrays)
    policy, graph = make_policy(model), recorded(model)
    model_file, source = onnx_bytes(graph, {}), c_bytes(graph, {})
    onnx, compiled = Onnx(model_file), Compiled(source, graph, folder)
    difference = largest_difference(race, policy, (onnx, compiled))
    seen = rng.random((1, SPEC.observation_size), np.float32)
    never, state = np.zeros(1, bool), policy.initial_state(1)
    rounds = [
        (
            fastest_us(lambda: policy.act(state, seen, never)),
            onnx.fastest_us(seen),
            compiled.fastest_us(seen),
        )
        for _ in range(ROUNDS)
    ]
    numpy_us, onnx_us, c_us = (min(times) for times in zip(*rounds, strict=True))
    return {
        "numpy_us": numpy_us,
        "onnxruntime_us": onnx_us,
        "c_us": c_us,
        "numpy_over_onnxruntime": numpy_us / onnx_us,
        "numpy_over_c": numpy_us / c_us,
        "largest_difference": difference,
        "onnx_bytes": len(model_file),
        "c_bytes": len(source),
        "compile_s": compiled.compile_s,
    }


def main() -> None:
    """Measures every policy, prints the figures, and writes the result file."""
    print_header("numpy", "onnx", "onnxruntime")
    load, race, results = os.getloadavg()[0], race_of_one(), {}
    for preset in PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            results[preset] = measure(preset, race, Path(folder))
        figures = results[preset]
        print(
            f"{preset:14} NumPy {figures['numpy_us']:6.1f} us, "
            f"onnxruntime {figures['onnxruntime_us']:6.1f} us, C {figures['c_us']:6.1f} us"
        )
    result = {"origin": origin(load), "policies": results}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    for preset, figures in results.items():
        for name in ("numpy_us", "onnxruntime_us", "c_us", "numpy_over_c", "largest_difference"):
            print(f"figure {name}_{preset.replace('-', '_')}={figures[name]:.3g}")


if __name__ == "__main__":
    main()
