"""How much faster is a train step whose batch two devices of the host share?

One device and two devices take turns in one process; the ideal ratio is 2. The devices are GPUs, or
else two devices that JAX simulates on the CPU. Those share its cores: they gain only what one
device leaves idle, and lose it if other processes use the cores.
"""

import argparse

import jax
from header import print_header
from update_speed import SIZE1M, milliseconds, ours

from rlcar.config import make_config

DEVICES = 2


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    jax.config.update("jax_num_cpu_devices", DEVICES)
    print_header("jax")
    print(jax.local_devices())
    if len(jax.local_devices()) < DEVICES:
        print("one card has nobody to share with: see what a CPU says with JAX_PLATFORMS=cpu")
        return
    cases = {"size1m": ("small", SIZE1M), "nano": ("nano", [])}
    for name, (preset, overrides) in cases.items():
        config = make_config(preset, overrides=overrides)
        one_ms, two_ms = milliseconds(ours(config), ours(config, DEVICES))
        print(f"figure {name}_one_device_ms={one_ms:.4g}")
        print(f"figure {name}_two_devices_ms={two_ms:.4g}")
        print(f"figure {name}_one_over_two={one_ms / two_ms:.4g}")


if __name__ == "__main__":
    main()
