"""Ten named circuits, drawn by hand as radii around the centre of the world.

They are used like all other tracks: `CIRCUIT_SEEDS[name]` is the seed of a circuit. Circuits have
larger seeds than the tracks of every other set.
"""

import numpy as np

FIRST_CIRCUIT_SEED = 1_000_000

# Radii in units of `base_radius_px` at equal angles, counter-clockwise from the start on the right.
_RADII: dict[str, tuple[float, ...]] = {
    "oval": (1.60, 1.53, 1.32, 1.12, 1.02, 1.00, 1.02, 1.12, 1.32, 1.53)
    + (1.60, 1.53, 1.32, 1.12, 1.02, 1.00, 1.02, 1.12, 1.32, 1.53),
    "peanut": (1.55, 1.50, 1.25, 0.95, 0.78, 0.72, 0.78, 0.95, 1.25, 1.50)
    + (1.55, 1.50, 1.25, 0.95, 0.78, 0.72, 0.78, 0.95, 1.25, 1.50),
    "bean": (1.45, 1.42, 1.35, 1.28, 1.24, 1.22, 1.24, 1.28, 1.35, 1.42)
    + (1.45, 1.40, 1.20, 0.92, 0.70, 0.62, 0.70, 0.92, 1.20, 1.40),
    "clover": (1.35, 1.20, 0.88, 0.74, 0.95, 1.22, 1.35, 1.20, 0.92, 0.72)
    + (0.72, 0.92, 1.20, 1.35, 1.22, 0.95, 0.74, 0.88, 1.10, 1.30),
    "heart": (1.30, 1.36, 1.36, 1.28, 1.02, 0.80, 1.02, 1.28, 1.36, 1.36)
    + (1.30, 1.18, 1.06, 1.02, 1.10, 1.28, 1.10, 1.02, 1.06, 1.18),
    "anvil": (1.70, 1.62, 1.30, 1.02, 0.88, 0.84, 0.88, 1.02, 1.30, 1.62)
    + (1.70, 1.35, 0.98, 0.90, 1.05, 1.15, 1.05, 0.90, 0.98, 1.35),
    "shark_fin": (1.65, 1.35, 1.10, 1.05, 1.15, 1.28, 1.25, 1.05, 0.88, 0.90)
    + (1.10, 1.30, 1.35, 1.20, 1.02, 0.92, 0.92, 1.02, 1.25, 1.52),
    "crank": (1.20, 1.00, 0.80, 0.78, 0.98, 1.25, 1.32, 1.15, 0.92, 0.85)
    + (1.00, 1.30, 1.50, 1.38, 1.10, 0.90, 0.85, 1.00, 1.28, 1.35),
    "lagoon": (1.00, 1.25, 1.50, 1.45, 1.20, 0.95, 0.80, 0.78, 0.90, 1.15)
    + (1.45, 1.60, 1.45, 1.15, 0.92, 0.85, 0.95, 1.10, 1.10, 1.00),
    "five_bends": (1.30, 1.12, 0.80, 0.95, 1.28, 1.12, 0.80, 0.80, 1.12, 1.30)
    + (1.12, 0.80, 0.80, 1.12, 1.30, 1.12, 0.80, 0.80, 1.05, 1.25),
}

CIRCUIT_SEEDS = {name: FIRST_CIRCUIT_SEED + i for i, name in enumerate(_RADII)}


def is_circuit(seeds: np.ndarray) -> np.ndarray:
    """Returns which seeds belong to a circuit, in the shape of `seeds`."""
    return (seeds >= FIRST_CIRCUIT_SEED) & (seeds < FIRST_CIRCUIT_SEED + len(_RADII))


def circuit_noise(seed: int, points: int) -> np.ndarray:
    """Returns radius / base_radius - 1 at equal angles, `[P]`, by a Catmull-Rom spline.

    It computes only with + - * and exact fractions, so that every machine gets the same bits.
    """
    radii = np.array(list(_RADII.values())[seed - FIRST_CIRCUIT_SEED])
    place = np.arange(points) * len(radii)
    index, part = place // points, (place % points) / points
    before, here, there, after = (radii[(index + k) % len(radii)] for k in (-1, 0, 1, 2))
    slope = there - before
    bend = 2 * before - 5 * here + 4 * there - after
    twist = 3 * (here - there) + after - before
    return here + 0.5 * part * (slope + part * (bend + part * twist)) - 1
