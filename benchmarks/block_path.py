"""Which way of handing a block on is faster: returned directly, or put by the simulator?

One actor makes blocks of a trajectory's shape, two in flight; another takes each by reference and
reads it. `direct` is what the loop does (the block is the call's own return value); the peer calls
`ray.put` inside the simulator and returns the ref. In turn, on the same two processes.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np  # noqa: E402
import ray  # noqa: E402
from header import print_header  # noqa: E402

from cluster.config import ClusterConfig  # noqa: E402
from cluster.runtime import ray_runtime  # noqa: E402
from rlcar.sim import SPEC  # noqa: E402

IN_FLIGHT = 2
ROUNDS = 5
STEPS, SIZES = 64, {"default": 16, "wide": 256}  # T, and N of nano's size and of a large simulator


@ray.remote(num_cpus=0)
class Source:
    """Always returns the same block, because driving is not measured here."""

    def __init__(self, cars: int):
        rng = np.random.default_rng(0)
        self._block = rng.random((STEPS, cars, SPEC.observation_size + SPEC.action_size + 4))
        self._block = self._block.astype(np.float32)

    def direct(self) -> np.ndarray:
        return self._block

    def put(self) -> list:
        return [ray.put(self._block)]

    def nbytes(self) -> int:
        return self._block.nbytes


@ray.remote(num_cpus=0)
class Sink:
    """Reads a block once, as the replay does when it stores it."""

    def take(self, block: np.ndarray) -> float:
        return float(block.sum())

    def take_put(self, refs: list) -> float:
        return self.take(ray.get(refs[0]))


def blocks_per_s(make: object, take: object, count: int) -> float:
    """Returns blocks per second, with `IN_FLIGHT` blocks in flight."""
    began, on_their_way = time.perf_counter(), []
    for _ in range(count):
        if len(on_their_way) == IN_FLIGHT:
            ray.get(on_their_way.pop(0))
        on_their_way.append(take.remote(make.remote()))
    ray.get(on_their_way)
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=400)
    count = parser.parse_args().blocks
    print_header("ray")
    with ray_runtime(ClusterConfig()):
        sink = Sink.remote()
        for name, cars in SIZES.items():
            source = Source.remote(cars)
            size_mb = ray.get(source.nbytes.remote()) / 1e6
            rates = []
            for _ in range(ROUNDS + 1):
                direct = blocks_per_s(source.direct, sink.take, count)
                put = blocks_per_s(source.put, sink.take_put, count)
                rates.append((direct, put))
            direct, put = (statistics.median(one) for one in zip(*rates[1:], strict=True))
            print(f"{name}: {size_mb:.2f} MB, direct {direct:.0f}, put {put:.0f} blocks/s")
            print(f"figure {name}_block_mb={size_mb:.3g}")
            print(f"figure {name}_direct_blocks_per_s={direct:.4g}")
            print(f"figure {name}_direct_env_steps_per_s={direct * STEPS * cars:.4g}")
            print(f"figure {name}_direct_over_put={direct / put:.3g}")


if __name__ == "__main__":
    main()
