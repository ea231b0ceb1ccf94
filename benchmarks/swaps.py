"""How much slower are answers while another version takes over, 25 times in ten seconds?

    python benchmarks/swaps.py [--lane realtime --lane direct --lane ray]

100 requests a second in open loop, on kept connections, without promotions and then with one every
0.4 s. A process of its own promotes. Both versions are the world model's policy `nano`.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from drawn_model import publish_drawn
from header import print_header
from load import Load, open_loop, post
from serving import BODY, HEADERS
from watched_server import LANES, serving

PER_S, DURATION_S = 100.0, 10.0
ROUNDS = 3
PROMOTE = """
import sys, time
from rlcar.registry import Registry
registry = Registry(sys.argv[1])
while True:
    for version in (1, 2):
        time.sleep(0.4)
        registry.promote(version)
"""


def measure(lane: str, models: Path) -> None:
    """Prints the latency without and with promotions."""
    with serving(lane, models, "--set", "deadline_ms=1000", "--set", "poll_s=0.1") as server:
        url = f"http://127.0.0.1:{server.port}"
        request = post(url, "/v1/act", BODY, HEADERS)
        calm, busy = [], []
        for _ in range(ROUNDS):
            calm.append(open_loop(url, request, PER_S, DURATION_S))
            promoting = subprocess.Popen([sys.executable, "-c", PROMOTE, str(models)])
            try:
                busy.append(open_loop(url, request, PER_S, DURATION_S))
            finally:
                promoting.kill()
                promoting.wait()
    errors = sum(load.errors for load in (*calm, *busy))
    if errors:
        raise RuntimeError(f"{errors} answers were no 200: nothing was measured")
    for percent in (50, 99):
        before_ms, during_ms = (_percentile_ms(loads, percent) for loads in (calm, busy))
        print(f"figure {lane}_swaps_p{percent}_ms={during_ms:.3g}")
        print(f"figure {lane}_swaps_p{percent}_over_calm={during_ms / before_ms:.3g}")


def _percentile_ms(loads: list[Load], percent: float) -> float:
    return float(np.percentile(np.concatenate([load.latencies_ms for load in loads]), percent))


def main() -> None:
    """Measures the lanes named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--lane",
        action="append",
        choices=LANES,
        help="a lane to measure; may be repeated; default: all",
    )
    arguments = parser.parse_args()
    print_header("ray", "uvicorn", "numpy")
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        for _ in range(2):
            publish_drawn(models, "nano")
        for lane in arguments.lane or LANES:
            measure(lane, models)


if __name__ == "__main__":
    main()
