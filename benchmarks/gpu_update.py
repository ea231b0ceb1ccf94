"""How long does a train step take on a GPU, and how much do command buffers help?

    python benchmarks/gpu_update.py [--out FOLDER] [JOB ...]

A train step is thousands of small kernels, and a launch costs the host more than most of them the
card. XLA can record launches in a command buffer (a CUDA graph), and `buffered` asks it for more of
that, loops above all, than it does by default. A job is `case/precision/setting`, a process of its
own, because settings of XLA are: all compile side by side, then take turns. Yardsticks in the same
run are no command buffers, and the plain version of `update_speed.py` (not yet measured: it had not
compiled when the card went back).
"""

import argparse
import collections
import fcntl
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

BUFFERED = (
    "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL,+DYNAMIC_SLICE_FUSION "
    "--xla_gpu_graph_min_graph_size=1 --xla_gpu_command_buffer_unroll_loops=true "
    "--xla_gpu_experimental_dynamic_slice_fusion_verify_offsets=false"
)
# Name of a setting -> flags of XLA, and train steps for each call.
SETTINGS = {
    "off": ("--xla_gpu_enable_command_buffer=", 8),
    "default": ("", 8),
    "buffered": (BUFFERED, 8),
    "buffered_singly": (BUFFERED, 1),
}
# Name of a case -> preset and settings: 16 windows of 64 steps, as in the public code, or 64 of 16.
LONG = ["replay.batch_size=16", "replay.batch_length=64", "training.block_length=64"]
SHORT = ["replay.batch_size=64", "replay.batch_length=16"]
CASES = {
    "nano": ("nano", []),
    "size1m_16x64": ("small", LONG),
    "size1m_64x16": ("small", SHORT),
    "medium_64x16": ("medium", SHORT),
}
JOBS = [
    *(f"size1m_64x16/float32/{setting}" for setting in SETTINGS),
    "size1m_64x16/bfloat16/buffered",
    "size1m_16x64/float32/default",
    "size1m_16x64/float32/buffered",
    "size1m_16x64/plain/default",
    "nano/float32/default",
    "nano/float32/buffered",
    "medium_64x16/float32/default",
    "medium_64x16/bfloat16/buffered",
]
ROUNDS = 16
COMPILING_S = 300.0  # then the jobs that are ready start; seven at once compiled in 136 s


def work(job: str, turn: Path, others: int, out: Path) -> None:
    """Compiles, waits for its turn, times, prints one JSON line."""
    began = time.monotonic()
    import update_speed

    from rlcar.config import make_config

    case, precision, setting = job.split("/")
    preset, overrides = CASES[case]
    update_speed.UPDATES_PER_CALL = SETTINGS[setting][1]
    plain = precision == "plain"
    more = [] if plain else [f"dreamer.precision={precision}"]
    config = make_config(preset, overrides=[*overrides, *more])
    run = (update_speed.plain if plain else update_speed.ours)(config)
    started = time.perf_counter()
    run()
    compile_s = time.perf_counter() - started
    (turn.parent / f"ready-{job.replace('/', '-')}").touch()
    until = began + COMPILING_S
    while len(list(turn.parent.glob("ready-*"))) < others and time.monotonic() < until:
        time.sleep(0.2)
    with turn.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        took = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            updates = run()
            took.append(1e3 * (time.perf_counter() - started) / updates)
        ms = statistics.median(took)
        rows = config.replay.batch_size * config.replay.batch_length
        row = {"job": job, "ms": ms, "best_ms": min(took), "compile_s": round(compile_s)}
        print(json.dumps(row | {"transitions_per_s": 1e3 * rows / ms}), flush=True)
        if setting == "default" and not plain:
            kernels(run, job.replace("/", "-"), out)


def kernels(run: Callable[[], int], name: str, out: Path) -> None:
    """Writes the kernels of a call with the time that each takes."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            updates = run()
        (path,) = Path(folder).rglob("perfetto_trace.json.gz")
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    spent: dict[str, list[float]] = collections.defaultdict(list)
    for event in events:
        if event.get("ph") == "X" and "GPU" in names.get(event["pid"], ""):
            spent[event["name"]].append(event["dur"])
    total_ms = sum(map(sum, spent.values())) / 1e3 / updates
    count = sum(map(len, spent.values())) / updates
    lines = [f"{name}: {total_ms:.2f} ms in {count:.0f} events an update"]
    for kernel, took in sorted(spent.items(), key=lambda item: -sum(item[1])):
        each = f"{sum(took) / updates / 1e3:8.3f} ms {len(took) / updates:7.1f} x"
        lines.append(f"{each} {statistics.median(took):8.2f} us  {kernel}")
    (out / f"kernels-{name}.txt").write_text("\n".join(lines[:120]) + "\n")
    print(f"# {lines[0]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="*", default=JOBS)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.jobs[0], Path(options.work[0]), int(options.work[1]), options.out)
        return
    from header import print_header

    print_header("jax")
    if shutil.which("nvidia-smi") is None:
        sys.exit("there is no nvidia-smi here: this benchmark is about a card")
    card = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    print(card.stdout.strip() or sys.exit("nvidia-smi finds no card: this benchmark is about one"))
    rows: list[dict] = []

    def listen(process: subprocess.Popen) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("{"):
                rows.append(json.loads(line))

    with tempfile.TemporaryDirectory() as folder:
        listeners = []
        for job in options.jobs:
            command = [sys.executable, __file__, job, "--out", str(options.out)]
            command += ["--work", f"{folder}/turn", str(len(options.jobs))]
            flags, _ = SETTINGS[job.rpartition("/")[2]]
            more = {"XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, env=os.environ | more
            )
            listeners.append(threading.Thread(target=listen, args=(process,)))
            listeners[-1].start()
        for listener in listeners:
            listener.join()
    for row in rows:
        name = row["job"].replace("/", "_")
        print(f"figure {name}_ms={row['ms']:.4g}")
        print(f"figure {name}_transitions_per_s={row['transitions_per_s']:.4g}")


if __name__ == "__main__":
    main()
