"""How much faster do weights reach the simulators as one object than as an argument of each call?

Eight actors take the weights of a preset; the clock stops when all have them. `one put` is what the
loop does: one object a version, its ref to everybody. The peer passes the arrays with each call,
which is the obvious first version. Both take turns on the same actors.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import ray  # noqa: E402
from header import print_header  # noqa: E402

from cluster.config import ClusterConfig  # noqa: E402
from cluster.runtime import ray_runtime  # noqa: E402
from rlcar.agents import make_agent  # noqa: E402
from rlcar.config import make_config  # noqa: E402
from rlcar.sim import SPEC  # noqa: E402
from rlcar.types import Weights  # noqa: E402

RECEIVERS = 8
ROUNDS = 15


@ray.remote(num_cpus=0)
class Receiver:
    """Reads every array, as acting would."""

    def take(self, weights: Weights) -> float:
        return float(sum(leaf.ravel()[0] for leaf in jax.tree.leaves(weights.params)))


def policy_weights(preset: str) -> Weights:
    """Fresh weights of a preset's policy."""
    learner = make_agent(make_config(preset), SPEC).learner
    return Weights(0, jax.device_get(learner.policy_params(learner.init(0))))


def seconds(receivers: list, argument: object) -> float:
    """Returns the seconds from the first call to the last answer."""
    began = time.perf_counter()
    ray.get([receiver.take.remote(argument) for receiver in receivers])
    return time.perf_counter() - began


def put_seconds(receivers: list, weights: Weights) -> float:
    """The same with one put, which counts too."""
    began = time.perf_counter()
    ref = ray.put(weights)
    ray.get([receiver.take.remote(ref) for receiver in receivers])
    return time.perf_counter() - began


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print_header("jax", "ray")
    sizes = {preset: policy_weights(preset) for preset in ("nano", "small", "medium")}
    with ray_runtime(ClusterConfig()):
        receivers = [Receiver.remote() for _ in range(RECEIVERS)]
        ray.get([one.take.remote(Weights(0, {"w": np.zeros(1, np.float32)})) for one in receivers])
        for preset, weights in sizes.items():
            pairs = [
                (put_seconds(receivers, weights), seconds(receivers, weights))
                for _ in range(ROUNDS + 1)
            ][1:]
            put_ms, each_ms = (1e3 * statistics.median(one) for one in zip(*pairs, strict=True))
            size_mb = sum(leaf.nbytes for leaf in jax.tree.leaves(weights.params)) / 1e6
            print(
                f"{preset}: {size_mb:.1f} MB, one put {put_ms:.1f} ms, each time {each_ms:.1f} ms"
            )
            print(f"figure {preset}_weights_mb={size_mb:.3g}")
            print(f"figure {preset}_one_put_ms={put_ms:.3g}")
            print(f"figure {preset}_each_time_over_one_put={each_ms / put_ms:.3g}")


if __name__ == "__main__":
    main()
