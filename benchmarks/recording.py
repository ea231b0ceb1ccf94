"""How much slower are answers while every session is recorded?

    python benchmarks/recording.py [--lane realtime --lane direct --lane ray]

Two servers run at the same time, one of which records all sessions and writes twice a second. Ten
cars send 200 requests a second in open loop to one server and then to the other, in turns. Both act
with the world model's policy `nano`.
"""

import argparse
import json
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from drawn_model import publish_drawn
from header import print_header
from load import Load, open_loop, post
from watched_server import LANES, serving

CARS, PER_S, DURATION_S, ROUNDS = 10, 200.0, 5.0, 8
EPISODE_STEPS = 50
OBSERVED = {"observation": [0.5, 0.6, 0.9, 0.5, 0.4, 0.2], "reward": 0.5}
LIMITS = ("--set", "deadline_ms=1000")


def measure(lane: str, models: Path, folder: Path) -> None:
    """Prints the latency without and with a recording."""
    recording = ("--record", str(folder), "--set", "record_flush_s=0.5")
    with (
        serving(lane, models, *LIMITS) as plain,
        serving(lane, models, *LIMITS, *recording) as recorded,
    ):
        without: list[Load] = []
        with_recording: list[Load] = []
        sides = [(plain.port, without), (recorded.port, with_recording)]
        for port, _ in sides:
            _drive(port)  # warms up
        for _ in range(ROUNDS):
            for port, loads in sides:
                loads.append(_drive(port))
            sides.reverse()
        time.sleep(3.0)  # The last report is a second old at most.
        steps = _recorded_steps(recorded.port)
    for percent in (50, 99):
        without_ms, with_ms = (_percentile_ms(side, percent) for side in (without, with_recording))
        print(f"{lane}: p{percent} {without_ms:.3f} ms without, {with_ms:.3f} ms with a recording")
        print(f"figure recording_p{percent}_ms_{lane}={with_ms:.3g}")
        print(f"figure recording_p{percent}_ratio_{lane}={with_ms / without_ms:.3g}")
    print(
        f"figure recording_requests_{lane}={sum(len(one.latencies_ms) for one in with_recording)}"
    )
    print(f"figure recording_steps_written_{lane}={steps}")


def _percentile_ms(loads: list[Load], percent: float) -> float:
    return float(np.percentile(np.concatenate([load.latencies_ms for load in loads]), percent))


def _drive(port: int) -> Load:
    url = f"http://127.0.0.1:{port}"
    requests = [
        post(
            url,
            "/v1/act",
            json.dumps(OBSERVED | {"session": f"car-{car}"} | _ends(step)).encode(),
            f"x-session-id: car-{car}\r\n",
        )
        for step in range(EPISODE_STEPS)
        for car in range(CARS)
    ]
    load = open_loop(url, requests, PER_S, DURATION_S)
    if load.errors:
        raise RuntimeError(f"{load.errors} answers were no 200: nothing was measured")
    return load


def _ends(step: int) -> dict[str, bool]:
    return {"is_first": step == 0, "terminated": step == EPISODE_STEPS - 1}


def _recorded_steps(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("rlcar_recording_steps_total "):
                return int(float(line.split()[1]))
    raise RuntimeError("the server does not record")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lane", action="append", choices=list(LANES))
    options = parser.parse_args()
    print_header("uvicorn", "numpy")
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        models = Path(name) / "models"
        publish_drawn(models, "nano")
        for lane in options.lane or ["realtime"]:
            measure(lane, models, Path(name) / f"recorded-{lane}")
    print(f"measured in {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
