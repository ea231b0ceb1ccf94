"""`rlcar soak` with a real training, a real server and the real page, in short."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

SAMPLES = 20
KEYS = {"hours", "rss_slope_mb_per_min", "fd_slope", "zombies", "restarts", "checks", "provenance"}


def _still_running(folder):
    """Returns the command lines of processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_soak_trains_serves_swaps_and_judges_and_ctrl_c_ends_it_with_the_results(tmp_path):
    out = tmp_path / "out"
    command = ["soak", "--hours", "1", "--local", "--mode", "test", "--out", str(out)]
    command += ["--sample-every-s", "0.5", "--swap-every-s", "5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rlcar.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )

    def has_enough():
        assert process.poll() is None, process.communicate()
        path = out / "samples.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return len(lines) >= SAMPLES and json.loads(lines[-1])["versions_answering"] >= 2

    try:
        wait_until(has_enough, 330.0)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert "Traceback" not in stderr, stderr
    found = json.loads((out / "soak.json").read_text())
    assert found.keys() >= KEYS
    assert (found["ended_early"], found["failure"], found["restarts"]) == (True, None, 0)
    assert (found["samples"], found["zombies"]) >= (SAMPLES, 0)
    assert (found["answers"] > 50, found["failures"], found["frames"] > 5) == (True, 0, True)
    # The clients have noticed that a new champion answers.
    assert found["versions_answering"] >= 2
    # So early, memory and disk may still grow; the verdict follows from what was measured.
    assert process.returncode == int(bool(found["broken"])), stderr
    kept = {check["name"] for check in found["checks"] if check["is_kept"]}
    assert kept >= {"zombies", "restarts", "requests without the policy's action"}
    assert kept.isdisjoint(found["broken"])
    assert len(kept) + len(found["broken"]) == len(found["checks"])
    assert "figure rss_slope_mb_per_min=" in stdout
    assert (out / "soak.png").stat().st_size > 10_000
    assert _still_running(out) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--hours", "1", "--minutes", "2"), "--hours and --minutes exclude each other"),
        (("--lane", "fast"), "there is no lane 'fast'"),
        (("--out", "."), "is not empty: name a new folder"),
    ],
)
def test_a_wrong_option_is_one_sentence(rlcar, tmp_path, arguments, message):
    (tmp_path / "something").touch()
    code, _, stderr = rlcar("soak", *arguments)
    assert code == 2
    assert message in stderr.replace("\n", " ")
    assert len(list(tmp_path.iterdir())) == 1
