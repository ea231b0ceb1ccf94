"""`rlcar serve`, in which a version misbehaves as its description says; for `delivery.py` alone.

    python benchmarks/faulty_server.py --lane realtime --registry FOLDER --port PORT

With the description `fault errors 0.05` every twentieth action fails while the file `FOLDER.fault`
exists beside the registry, so that the benchmark decides when the fault begins.
"""

import random
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
FAULTS = ("errors", "latency", "flip")
Act = Callable[[Any, np.ndarray, np.ndarray], tuple[np.ndarray, Any]]


def describe(fault: str, size: float) -> str:
    """Returns the description of a version with a fault."""
    assert fault in FAULTS, fault
    return f"fault {fault} {size:g}"


def switch(models: Path) -> Path:
    """Returns the file that exists while the versions of a registry are faulty."""
    return models.with_name(f"{models.name}.fault")


def faulty(act: Act, description: str, is_on: Callable[[], bool]) -> Act:
    """Returns the function of a policy as it behaves with its fault, if it has one."""
    if not description.startswith("fault "):
        return act
    _, fault, text = description.split()
    size, draw = float(text), random.Random()

    def failing(state: Any, observation: np.ndarray, is_first: np.ndarray) -> Any:
        if draw.random() < size:
            raise ValueError("injected")
        return act(state, observation, is_first)

    def slow(state: Any, observation: np.ndarray, is_first: np.ndarray) -> Any:
        began_s = time.perf_counter()
        answer = act(state, observation, is_first)
        until_s = began_s + size * (time.perf_counter() - began_s)
        while time.perf_counter() < until_s:
            pass
        return answer

    def flipped(state: Any, observation: np.ndarray, is_first: np.ndarray) -> Any:
        action, state = act(state, observation, is_first)
        return action * np.array([-1.0, 1.0], np.float32), state

    chosen = {"errors": failing, "latency": slow, "flip": flipped}[fault]

    def switched(state: Any, observation: np.ndarray, is_first: np.ndarray) -> Any:
        return (chosen if is_on() else act)(state, observation, is_first)

    return switched


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from serve.policy import alias_follower

    warm_up = alias_follower.warm_up
    file = switch(Path(sys.argv[sys.argv.index("--registry") + 1]))

    def with_fault(policy: Any) -> alias_follower.ServedModel:
        served = warm_up(policy)
        policy.act = faulty(policy.act, policy.version.metadata["description"], file.exists)
        return served

    alias_follower.warm_up = with_fault
    sys.argv = ["rlcar", "serve", *sys.argv[1:]]
    runpy.run_module("rlcar.cli", run_name="__main__")


if __name__ == "__main__":
    main()
