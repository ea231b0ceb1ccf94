"""What does serving cost over bare uvicorn + Starlette with the same policy, in either lane?

    make bench-serve      (installs LitServe and BentoML into .venv-bench-serve, then runs this)

Servers run one or two at a time on this machine, the load generator beside them; a ratio is the
median over rounds in which both sides were measured one after the other.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from drawn_model import publish_drawn
from header import print_header
from load import Load, closed_loop, open_loop, post, sockets_at
from processes import free_port, program
from watched_server import LANES

from rlcar.system.process_usage import process_files

ROUNDS, DURATION_S = 3, 2.0
ROOT = Path(__file__).parent.parent
RLCAR = Path(sys.executable).with_name("rlcar")
PEERS = ROOT / "benchmarks" / "peers"
PEER_PYTHON = ROOT / ".venv-bench-serve" / "bin" / "python"
BODY = json.dumps({"observation": [0.5, 0.6, 0.9, 0.5, 0.4, 0.2]}).encode()
# With this, Ray starts no task that waits for the client to disconnect.
HEADERS = "x-request-disconnect-disabled: true\r\n"
FRAME = (1).to_bytes(4, "little") + b"\0\0\1\0" + bytes(4) + np.full(6, 0.5, "<f4").tobytes()


class Server(NamedTuple):
    """A running server."""

    name: str
    url: str
    pid: int

    @property
    def request(self) -> bytes:
        return post(self.url, "/v1/act", BODY, HEADERS)


@contextlib.contextmanager
def _started(name: str, command: list[str], port: int) -> Iterator[Server]:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    environment |= {"RAY_AUTH_MODE": "disabled"}
    with (
        tempfile.TemporaryFile("w+") as said,
        program(command, env=environment, stdout=subprocess.DEVNULL, stderr=said) as process,
    ):
        server = Server(name, f"http://127.0.0.1:{port}", process.pid)
        for _ in range(1200):
            with contextlib.suppress(OSError):
                asked = urllib.request.Request(f"{server.url}/v1/act", BODY, method="POST")
                asked.add_header("content-type", "application/json")
                urllib.request.urlopen(asked, timeout=5.0).read()
                break
            if process.poll() is not None:
                said.seek(0)
                raise RuntimeError(f"{name} ended: {said.read()}")
            time.sleep(0.1)
        time.sleep(5.0)  # HAProxy loads its last configuration, and closes connections meanwhile
        closed_loop(server.url, server.request, 4, 1.0)
        yield server


def _bare(models: Path) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    script = str(ROOT / "benchmarks/peers/bare_starlette.py")
    return _started("starlette", [sys.executable, script, str(models), str(port)], port)


def _peer(name: str, models: Path) -> contextlib.AbstractContextManager[Server]:
    """Another server for Python policies, with one worker, in a separate virtual environment."""
    port = free_port()
    os.environ["RLCAR_PEER_MODELS"] = str(models)
    os.environ["RLCAR_PEER_PATH"] = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    if name == "litserve":
        command = [str(PEER_PYTHON), str(PEERS / "litserve_server.py"), str(port)]
    else:
        os.environ["BENTOML_DO_NOT_TRACK"] = "true"
        os.environ["BENTOML_CONFIG_OPTIONS"] = "api_server.logging.access.enabled=false"
        command = [str(PEER_PYTHON.with_name("bentoml")), "serve", "bentoml_server:ActService"]
        command += ["--working-dir", str(PEERS), "--host", "127.0.0.1", "--port", str(port)]
    return _started(name, command, port)


def _lane(lane: str, models: Path) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    limits = ["--set", "requests_per_s=1e6", "--set", "in_flight=256"]
    limits += ["--set", "in_flight_per_client=256"]
    command = [str(RLCAR), "serve", *LANES[lane], "--registry", str(models)]
    return _started(
        "serve" if lane == "ray" else lane, [*command, "--port", str(port), *limits], port
    )


def _compare(base: Server, ours: Server, connection_counts: tuple[int, ...], suffix: str) -> None:
    """Prints ratios of the median latency."""
    for connections in connection_counts:
        pairs = []
        for _ in range(ROUNDS):
            both = [
                closed_loop(server.url, server.request, connections, DURATION_S)
                for server in (base, ours)
            ]
            _refuse_errors(both)
            pairs.append([one.percentile_ms(50) for one in both])
        ratio = statistics.median(own / bare for bare, own in pairs)
        bare_ms, own_ms = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(
            f"{connections} connections: {base.name} p50 {bare_ms:.3f} ms, {ours.name} "
            f"{own_ms:.3f} ms, ratio {ratio:.2f}"
        )
        many = "" if connections == 1 else f"_{connections}"
        print(f"figure {ours.name}_p50_over_starlette{many}{suffix}={ratio:.3g}")
        if connections == 1:
            print(f"figure {ours.name}_p50_ms{suffix}={own_ms:.3g}")


def _measure_rate(server: Server, suffix: str) -> None:
    """Prints the highest rate, of one replica."""
    most = [closed_loop(server.url, server.request, 16, DURATION_S) for _ in range(ROUNDS)]
    _refuse_errors(most)
    print(f"figure {server.name}_requests_per_s{suffix}={max(one.per_s for one in most):.4g}")


def _measure(server: Server) -> None:
    """Prints open-loop tails, WebSocket latency and CPU per request."""
    lane, duration_s = server.name, 2 * DURATION_S
    calm = open_loop(server.url, server.request, 200.0, duration_s)
    print(f"figure {lane}_open_loop_p99_ms={calm.percentile_ms(99):.3g}")
    cpu_s = _cpu_s(server.pid)
    busy = open_loop(server.url, server.request, 500.0, duration_s)
    used_ms = 1e3 * (_cpu_s(server.pid) - cpu_s) / len(busy.latencies_ms)
    print(f"figure {lane}_cpu_ms_per_request={used_ms:.3g}")
    line = sockets_at(server.url, "/v1/drive", FRAME, cars=20, per_s=50.0, duration_s=duration_s)
    print(f"figure {lane}_websocket_50_hz_p50_ms={line.percentile_ms(50):.3g}")
    print(f"figure {lane}_websocket_50_hz_p99_ms={line.percentile_ms(99):.3g}")
    with _hogs(2):
        hogged = open_loop(server.url, server.request, 100.0, duration_s)
    print(f"figure {lane}_open_loop_p99_ms_with_hogs={hogged.percentile_ms(99):.3g}")
    _refuse_errors([calm, busy, hogged])


@contextlib.contextmanager
def _hogs(number: int) -> Iterator[None]:
    """Runs processes that use all the CPU time that they get."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(program([sys.executable, "-c", "while True: pass"]))
        time.sleep(1.0)
        yield


def _cpu_s(pid: int) -> float:
    """Returns the CPU time of a process and its descendants."""
    below: dict[int, list[int]] = {}
    times_s: dict[int, float] = {}
    for stat in process_files("stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(") ")[2].split()
            one = int(stat.parent.name)
            below.setdefault(int(fields[1]), []).append(one)
            times_s[one] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    total_s, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        total_s += times_s.get(one, 0.0)
        waiting += below.get(one, [])
    return total_s


def _refuse_errors(loads: list[Load]) -> None:
    errors = sum(load.errors for load in loads)
    if errors:
        raise RuntimeError(f"{errors} answers were no 200: nothing was measured")


def main() -> None:
    """Measures all lanes with the world model's policy, then, shorter, with a small network."""
    print_header("ray", "uvicorn", "starlette", "numpy")
    with tempfile.TemporaryDirectory() as folder:
        for preset, suffix, connections in (("nano", "", (1, 8, 64)), ("sac", "_sac", (1,))):
            models = Path(folder) / preset
            cost_us = publish_drawn(models, preset)
            print(f"policy {preset}: {cost_us:.0f} us of CPU an action")
            with _bare(models) as base:
                for lane in LANES:
                    with _lane(lane, models) as ours:
                        _compare(base, ours, connections, suffix)
                        _measure_rate(ours, suffix)
                        if not suffix:
                            _measure(ours)
                _measure_rate(base, suffix)
                if not suffix:
                    _measure(base)
                    for name in ("litserve", "bentoml") if PEER_PYTHON.exists() else ():
                        with _peer(name, models) as peer:
                            _compare(base, peer, (1,), suffix)
                            _measure_rate(peer, suffix)


if __name__ == "__main__":
    main()
