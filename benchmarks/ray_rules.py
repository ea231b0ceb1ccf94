"""Which share of grand-prix tracks does the best rule lap that sees only the rays of the moment?

    python benchmarks/ray_rules.py [rules, default 120]

Random rules of the family `rlcar.evaluation.drivers.RayRule` drive 256 training tracks; the best
there drives the test tracks. Also printed is the best of all on the test tracks, which flatters it.
The peers, in the same run, are full throttle and the driver who sees the track.
"""

import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from header import print_header  # noqa: E402

from rlcar.config import make_race_config  # noqa: E402
from rlcar.evaluation.drivers import (  # noqa: E402
    CAREFUL,
    RayRule,
    careful,
    full_throttle,
    make_reference,
)
from rlcar.evaluation.laps import drive  # noqa: E402
from rlcar.track import TRACK_SETS  # noqa: E402
from rlcar.types import Policy  # noqa: E402

CONFIG = make_race_config("grand-prix")
TRAINING_TRACKS = tuple(range(256))


def lap_rate(policy: Policy, rule: RayRule | None, tracks: str | tuple[int, ...]) -> float:
    """Returns the share of tracks lapped."""
    params = None if rule is None else RayRule(*map(jnp.float32, rule))
    return float((drive(policy, params, CONFIG, tracks).lap_time_steps > 0).mean())


def main(rules: int) -> None:
    print_header("jax")
    rng = np.random.default_rng(0)
    low, high = RayRule(2.0, 0.15, 0.08, 0.1, 4.0), RayRule(7.0, 0.6, 0.3, 0.8, 20.0)
    tried = [CAREFUL, *(RayRule(*rng.uniform(low, high)) for _ in range(rules))]
    on_training = [lap_rate(careful, rule, TRAINING_TRACKS) for rule in tried]
    on_test = [lap_rate(careful, rule, "test") for rule in tried]
    best = int(np.argmax(on_training))
    print(f"best on training tracks: {[round(float(x), 2) for x in tried[best]]}")
    reference = make_reference(tuple(TRACK_SETS["test"]), CONFIG)
    print(f"figure ray_rule_best_training_lap_rate={on_training[best]:.3f}")
    print(f"figure ray_rule_best_test_lap_rate={on_test[best]:.3f}")
    print(f"figure ray_rule_most_on_test_lap_rate={max(on_test):.3f}")
    print(f"figure ray_rule_careful_training_lap_rate={on_training[0]:.3f}")
    print(f"figure ray_rule_careful_test_lap_rate={on_test[0]:.3f}")
    print(f"figure full_throttle_test_lap_rate={lap_rate(full_throttle, None, 'test'):.3f}")
    print(f"figure sees_the_track_test_lap_rate={lap_rate(reference, None, 'test'):.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
