"""How much does a car cost the simulator if several share a track and sense each other?

    python benchmarks/racing_cars.py

It drives 4,096 cars in one compiled scan with a steering policy that really laps, on one core:
alone, and in groups of 2, 4 and 8 on one track. The peer, in the same run, is the race of single
cars. The measurements alternate, so that other load on the machine meets all of them.
"""

import time
from typing import Any

# Chooses the core and the threads before JAX starts, so it comes first.
from simulator import SCAN_STEPS, drive  # isort: skip

import jax
import jax.numpy as jnp
import numpy as np
from header import print_header

from rlcar.config.race import RaceConfig
from rlcar.sim import make_race
from rlcar.sim.backend import COMPILER_OPTIONS
from rlcar.track import make_pool

CARS, GROUPS, REPEATS = 4096, (1, 2, 4, 8), 10


class Drive:
    """A compiled scan of a race with so many cars on each track."""

    def __init__(self, cars_per_track: int):
        config = RaceConfig(cars_per_track=cars_per_track)
        race = make_race(config, make_pool(range(2000), config.track))

        def scan(state: Any, observation: Any) -> Any:
            def body(carry: Any, _: None) -> Any:
                state, observation = carry
                state, time_step, events = race.step(state, drive(observation, jnp))
                met = events.encounters
                contacts = 0 if met is None else met.is_at_fault.sum()
                overtakes = 0 if met is None else met.overtakes.sum()
                told = events.is_finish.sum(), contacts, overtakes
                return (state, time_step.observation), told

            return jax.lax.scan(body, (state, observation), None, length=SCAN_STEPS)

        self._scan = jax.jit(scan, compiler_options=COMPILER_OPTIONS)
        state, time_step = race.reset(jnp.arange(CARS, dtype=jnp.int32), 0)
        self._carry = (state, time_step.observation)
        self.rates: list[float] = []
        self.told = np.zeros(3, int)  # finishes, contacts, overtakings

    def run(self) -> None:
        """Drives one scan and remembers its rate in env steps for each second of CPU time."""
        start_s = time.process_time()
        self._carry, told = jax.block_until_ready(self._scan(*self._carry))
        self.rates.append(CARS * SCAN_STEPS / (time.process_time() - start_s))
        self.told += [int(np.sum(part)) for part in told]


def main() -> None:
    print_header("jax", "numpy")
    drives = {cars: Drive(cars) for cars in GROUPS}
    for one in drives.values():
        one.run()  # compiles
        one.rates.clear()
    for _ in range(REPEATS):
        for one in drives.values():
            one.run()
    for cars, one in drives.items():
        finishes, contacts, overtakes = one.told
        print(f"{cars} cars a track: {finishes} laps, {contacts} contacts, {overtakes} overtakings")
        print(f"figure env_steps_per_cpu_second_of_{cars}={max(one.rates):.4g}")
    for cars in GROUPS[1:]:
        ratio = max(drives[cars].rates) / max(drives[1].rates)
        print(f"figure speed_of_{cars}_relative_to_1={ratio:.3g}")


if __name__ == "__main__":
    main()
