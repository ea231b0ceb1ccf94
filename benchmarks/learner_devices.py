"""How much faster is a train step whose batch two devices of the host share?

One device and two take turns in one process; at best it would be twice. The cards that are there,
else two devices that a CPU is told to be: those share its cores, so they gain only what one device
leaves idle, and lose it where other processes want the cores.
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
