"""`rlcar soak` with a real training, a real server and the real page, in short."""

import json
import os
import signal
import subprocess
import sys

import pytest

from rlcar.registry import Registry
from rlcar.system.process_usage import process_files
from tests.support.waiting import wait_until

KEYS = {"hours", "rss_slope_mb_per_min", "fd_slope", "zombies", "restarts", "checks", "provenance"}
SERVICES = {"training", "server", "page"}


def _still_running(folder):
    """Returns the command lines of processes that name the folder."""
    found = []
    for path in process_files("cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


def _samples(out):
    path = out / "samples.jsonl"
    # The last line may not be complete yet.
    return list(map(json.loads, path.read_text().split("\n")[:-1])) if path.exists() else []


def _soak_until(has_enough, out, *options):
    """Runs a soak of an hour, and presses Ctrl-C when it has enough.

    Returns its report, its exit code and what it printed.
    """
    command = ["soak", "--hours", "1", "--local", "--out", str(out), "--sample-every-s", "0.5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rlcar.cli", *command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )

    def is_ready():
        assert process.poll() is None, process.communicate()
        return has_enough(_samples(out))

    try:
        wait_until(is_ready, 330.0)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    assert "Traceback" not in stderr, stderr
    found = json.loads((out / "soak.json").read_text())
    # So early, memory and disk may still grow; the verdict follows from what was measured.
    assert process.returncode == int(bool(found["broken"])), stderr
    kept = {check["name"] for check in found["checks"] if check["is_kept"]}
    assert kept.isdisjoint(found["broken"])
    assert len(kept) + len(found["broken"]) == len(found["checks"])
    assert kept >= {"zombies", "restarts", "requests without the policy's action"}
    return found, stdout


def _assert_report(found, out, stdout):
    assert found.keys() >= KEYS
    assert (found["ended_early"], found["failure"], found["restarts"]) == (True, None, 0)
    assert found["samples"] == len(_samples(out))
    assert (found["zombies"], found["failures"]) == (0, 0)
    assert (found["answers"] > 0, found["frames"] > 0) == (True, True)
    assert f"figure hours={found['hours']}" in stdout
    assert (out / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "soak.png").stat().st_size > 10_000
    assert _still_running(out) == []


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_ctrl_c_leaves_a_report_of_what_was_measured_and_no_process(tmp_path):
    out = tmp_path / "out"
    # PPO compiles in a few seconds.
    found, stdout = _soak_until(lambda samples: len(samples) >= 12, out, "--preset", "ppo")
    _assert_report(found, out, stdout)
    assert found["rss_slope_mb_per_min"] is not None
    assert _samples(out)[-1]["groups"].keys() >= SERVICES


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(700)
def test_the_clients_of_a_soak_notice_new_champions(tmp_path):
    out = tmp_path / "out"

    def has_enough(samples):
        return len(samples) >= 40 and samples[-1]["versions_answering"] >= 5

    options = ("--mode", "test", "--swap-every-s", "5")
    found, stdout = _soak_until(has_enough, out, *options)
    _assert_report(found, out, stdout)
    assert found["versions_published"] >= found["versions_answering"] >= 5
    # Three are kept, and Ctrl-C may come between a publication and the deletion of the oldest.
    assert len(Registry(out / "models").versions()) in (3, 4)


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
