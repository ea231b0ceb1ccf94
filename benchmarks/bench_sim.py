"""How does our simulator compare with those that a Python user can install?

    make bench-sim        (installs the peers into .venv-bench, then runs this)

Each side runs alone on one core, in turn, in this run; env steps per CPU-second. Peers are not cars
on our track: the table says what each of them simulates.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PEER_PYTHON = HERE.parent / ".venv-bench" / "bin" / "python"
WHAT = {
    "envpool_racetrack": "highway-env's racetrack in C++, 64 at once",
    "envpool_car_racing": "CarRacing in C++ with pixels, 64 at once",
    "gymnasium_car_racing_physics": "CarRacing's Box2D physics, no pixels",
    "highway_racetrack": "highway-env's racetrack in Python",
    "gymnax_cartpole": "CartPole in JAX, 4,096 at once: the framework's ceiling",
}


def our_figures() -> dict[str, float]:
    """Runs `simulator.py` and reads its figures."""
    done = subprocess.run(
        [sys.executable, str(HERE / "simulator.py")], capture_output=True, text=True, check=True
    )
    print(done.stdout, end="")
    lines = [line.removeprefix("figure ") for line in done.stdout.splitlines() if "figure " in line]
    return {name: float(value) for name, value in (line.split("=") for line in lines)}


def peer_rate(name: str) -> float | None:
    """Runs one peer in its own process; None, with its last words, where it does not run."""
    command = [str(PEER_PYTHON), str(HERE / "peers" / "peer.py"), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    lines = [line for line in done.stdout.splitlines() if line.startswith("rate=")]
    if not lines:
        print(f"{name} does not run: {done.stderr.strip().splitlines()[-1:]}")
        return None
    return float(lines[-1].removeprefix("rate="))


def main() -> None:
    figures = our_figures()
    ours = figures["env_steps_per_cpu_second_4096"]
    rates = {name: peer_rate(name) for name in WHAT}
    print(f"\n{'peer':32} {'env steps/CPU-s':>16} {'ours over it':>13}  what it is")
    for name, rate in rates.items():
        shown = "-" if rate is None else f"{rate:,.0f}"
        ratio = "-" if rate is None else f"{ours / rate:,.2f}"
        print(f"{name:32} {shown:>16} {ratio:>13}  {WHAT[name]}")
    print(f"{'rlcar, batch 4,096':32} {ours:>16,.0f} {1:>13}")
    print(f"figure sim_env_steps_per_cpu_s={ours:.4g}")
    for name, rate in rates.items():
        if rate is not None:
            print(f"figure sim_over_{name}={ours / rate:.4g}")


if __name__ == "__main__":
    main()
