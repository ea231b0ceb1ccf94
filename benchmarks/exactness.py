"""How far are the integer sensors from float64 brute force over every edge, on 10 M random states?

    python benchmarks/exactness.py [states, default 10000000]

Poses lie on and beside the road, with any heading; both worlds' tracks. Errors of single rays can
be large where a ray grazes a corner, so the mean and the share over 1 px are what counts.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parents[1]))

from header import print_header  # noqa: E402
from rich.progress import track  # noqa: E402

from rlcar.config import make_race_config  # noqa: E402
from tests.sim.agreement import compare  # noqa: E402

POSES = 4000  # a track
TRACKS = 25  # compared at once


def main(states: int) -> None:
    print_header("numpy")
    for world in ("classic", "grand-prix"):
        config = make_race_config(world).track
        rounds = max(1, states // 2 // (POSES * TRACKS))
        rays = total_px = far = 0.0
        misjudged_px = 0.0
        for one in track(range(rounds), description=world):
            seeds = range(one * TRACKS, (one + 1) * TRACKS)
            errors_px, wrong_px = compare(config, seeds, POSES, seed=one)
            rays, total_px = rays + len(errors_px), total_px + float(errors_px.sum())
            far += float((errors_px > 1.0).sum())
            misjudged_px = max(misjudged_px, float(wrong_px.max()))
        name = world.replace("-", "_")
        print(f"figure {name}_states={rounds * POSES * TRACKS}")
        print(f"figure {name}_mean_error_px={total_px / rays:.4g}")
        print(f"figure {name}_share_over_1_px={far / rays:.4g}")
        print(f"figure {name}_farthest_wrong_verdict_px={misjudged_px:.4g}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10_000_000)
