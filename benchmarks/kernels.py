"""How many kernels does one train step launch on an H200, counted without one?

    make .venv-cuda && PYTHONPATH=.venv-cuda python benchmarks/kernels.py

JAX compiles ahead of time for a described card; of the program that comes out, every operation that
is not free is a kernel, as often as the loops around it run. The public code's train step at its
size1m and 16 x 64 windows has 10,769.
"""

import argparse
import os
import re

os.environ["JAX_PLATFORMS"] = "cpu"  # nothing runs on the GPU
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # there is no driver to ask

import jax  # noqa: E402
import numpy as np  # noqa: E402
from header import print_header  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from rlcar.agents import make_agent  # noqa: E402
from rlcar.config import Config, make_config  # noqa: E402
from rlcar.sim import SPEC  # noqa: E402
from rlcar.types import Batch  # noqa: E402

PUBLIC_CODE = 10_769  # ../shared/design/findings.md
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 device_memory_size: 150000000000
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA" dnn_version_info { major: 9 } device_description_str: "NVIDIA H200"
"""
CASES = {
    "size1m_16x64": ("small", ["replay.batch_size=16", "replay.batch_length=64"]),
    "size1m_64x16": ("small", ["replay.batch_size=64", "replay.batch_length=16"]),
    "nano": ("nano", []),
}
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("copy-done", "async-done", "fusion-done", "partition-id", "replica-id", "opt-barrier"),
}


def compiled_text(config: Config) -> str:
    """Returns the program of one train step, compiled for the GPU above."""
    card = topologies.get_topology_desc(platform="cuda", target_config=H200, topology="1x1x1")
    there = jax.sharding.SingleDeviceSharding(card.devices[0])
    learner = make_agent(config, SPEC).learner
    shape = 1, config.replay.batch_size, config.replay.batch_length

    def leaf(*rest: int, dtype: type = np.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*shape, *rest), dtype)

    flags = (leaf(dtype=np.bool_) for _ in range(3))
    batch = Batch(leaf(SPEC.observation_size), leaf(SPEC.action_size), leaf(), *flags)
    update = jax.jit(learner.update.__wrapped__, in_shardings=there, out_shardings=there)
    return update.lower(jax.eval_shape(learner.init, 0), batch).compile().as_text()


def count_kernels(text: str) -> int:
    """Counts what an optimised HLO program launches; raises ValueError for a loop without end."""
    bodies: dict[str, list[str]] = {}
    name = entry = ""
    for line in text.splitlines():
        opened = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if opened:
            name = opened.group(2)
            bodies[name] = []
            entry = name if opened.group(1) else entry
        elif line.startswith("  ") and " = " in line:
            bodies[name].append(line.split(" = ", 1)[1])

    def kernels(name: str) -> int:
        total = 0
        for line in bodies[name]:
            kind = re.search(r"[\]\})] ([a-z][a-z\-]*)\(", line)
            operation = kind.group(1) if kind else ""
            if operation == "while":
                trips = re.search(r'known_trip_count"?:\{"n":"(\d+)"', line)
                if trips is None:
                    raise ValueError(f"a loop whose length is not known: {line[:200]}")
                total += int(trips.group(1)) * kernels(_called(line, "body"))
            elif operation in ("call", "async-start"):
                total += kernels(_called(line, "to_apply|calls"))
            elif operation == "conditional":
                branches = re.findall(r"%([\w.\-]+)", _braces(line))
                total += max(kernels(branch) for branch in branches)
            elif operation not in _FREE:
                total += 1
        return total

    return kernels(entry)


def _called(line: str, what: str) -> str:
    found = re.search(rf"(?:{what})=%?([\w.\-]+)", line)
    assert found, line[:200]
    return found.group(1)


def _braces(line: str) -> str:
    found = re.search(r"branch_computations=\{([^}]*)\}", line)
    assert found, line[:200]
    return found.group(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    options = parser.parse_args()
    print_header("jax", "jax-cuda12-plugin")
    for name in options.cases or CASES:
        preset, overrides = CASES[name]
        changes = ["training.block_length=64", *overrides]
        kernels = count_kernels(compiled_text(make_config(preset, overrides=changes)))
        print(f"{name}: {kernels:,} kernels a train step")
        print(f"figure {name}_kernels={kernels}")
        if name == "size1m_16x64":
            print(f"figure public_over_ours={PUBLIC_CODE / kernels:.3g}")


if __name__ == "__main__":
    main()
