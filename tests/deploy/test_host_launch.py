"""The launch script: a campaign in tmux outlives its terminal; a mistake is one sentence."""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest

from benchmarks.processes import free_port
from rlcar.errors import GivenUpError
from tests.support.installed_host import ROOT, VENV
from tests.support.waiting import wait_until

LAUNCH = ROOT / "deploy/host/launch"
TINY = """
slots: 1
defaults:
  mode: test
  local: true
  algorithm: ppo
  set: {training.env_steps: 1000000, training.checkpoint_every_s: 1}
jobs:
  - name: first
  - name: second
"""
needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="not installed: tmux")
# A launched campaign runs the program of the checkout under test.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


class Session:
    """A campaign of two jobs in a folder of its own, in a session with a random name."""

    def __init__(self, folder: Path):
        self.folder, self.runs = folder, folder / "runs"
        self.file = folder / "tiny.yaml"
        self.file.write_text(TINY)
        self.metrics_port, self.tensorboard_port = free_port(), free_port()
        self.name = f"test-{uuid.uuid4().hex[:12]}"

    @property
    def options(self) -> list[object]:
        ports = ["--metrics-port", self.metrics_port, "--tensorboard-port", self.tensorboard_port]
        return [self.file, "--name", self.name, "--venv", VENV, *ports]

    def launch(self, *options: object) -> subprocess.CompletedProcess[str]:
        return run(LAUNCH, *self.options, *options, cwd=self.folder)

    def tmux(self, *words: str) -> str:
        return run("tmux", "-L", f"rlcar-{self.name}", *words, cwd=self.folder).stdout

    def panes(self) -> dict[str, int]:
        """Returns the process of each part that runs."""
        lines = self.tmux("list-panes", "-s", "-F", "#{window_name} #{pane_dead} #{pane_pid}")
        words = [line.split() for line in lines.splitlines()]
        return {name: int(pid) for name, is_dead, pid in words if is_dead == "0"}

    def has_checkpoint(self) -> bool:
        return any((self.runs / "first/checkpoints").glob("*/"))


@pytest.fixture
def session(tmp_path):
    session = Session(tmp_path)
    yield session
    processes = session.panes() if shutil.which("tmux") else {}
    if "campaign" in processes:
        os.kill(processes["campaign"], signal.SIGTERM)  # it ends its jobs
        with contextlib.suppress(AssertionError):
            wait_until(lambda: "campaign" not in session.panes(), 60)
    if processes:
        session.tmux("kill-server")


def close_terminal_of(command: list[str], cwd: Path, until: object) -> None:
    """Runs a command in a terminal of its own, and closes the terminal once `until` is true."""
    child, terminal = pty.fork()
    if child == 0:  # the session's leader, as the shell of a login
        os.chdir(cwd)
        os.execvpe(command[0], command, ENVIRONMENT)
    try:
        end_s = time.monotonic() + 120
        while not until():
            assert time.monotonic() < end_s
            time.sleep(0.2)
    finally:
        os.close(terminal)  # the kernel sends SIGHUP
        os.waitpid(child, 0)


@pytest.mark.long
@needs_tmux
def test_a_launched_campaign_outlives_its_terminal_and_goes_on_after_a_kill(session):
    words = [str(word) for word in (LAUNCH, *session.options)]
    close_terminal_of(
        ["sh", "-c", '"$@"; sleep 600', "sh", *words],
        session.folder,
        lambda: len(session.panes()) == 3 and session.has_checkpoint(),
    )
    before = session.panes()
    assert set(before) == {"campaign", "monitor", "tensorboard"}
    assert "rlcar_" in httpx.get(f"http://127.0.0.1:{session.metrics_port}/metrics").text
    assert httpx.get(f"http://127.0.0.1:{session.tensorboard_port}/").status_code == 200

    again = session.launch()
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[:4] == [
        "running  campaign",
        "running  monitor",
        "running  tensorboard",
        "everything is as it should be: nothing changed",
    ]
    assert session.panes() == before

    os.kill(before["campaign"], signal.SIGKILL)
    os.kill(before["monitor"], signal.SIGKILL)
    wait_until(lambda: set(session.panes()) == {"tensorboard"}, 20)
    mended = session.launch()
    assert mended.returncode == 0, mended.stderr
    assert [line.split()[:2] for line in mended.stdout.splitlines()[:3]] == [
        ["start", "campaign:"],
        ["start", "monitor:"],
        ["running", "tensorboard"],
    ]
    after = session.panes()
    assert after["tensorboard"] == before["tensorboard"]
    assert after["campaign"] != before["campaign"]

    second = session.launch("--name", f"{session.name}-b", "--no-tensorboard")
    assert second.returncode == 2
    assert f"runs in {session.runs} already (session rlcar-{session.name}, tmux)" in second.stderr
    other = session.folder / "other.yaml"
    other.write_text(TINY)
    renamed = run(LAUNCH, other, *session.options[1:], cwd=session.folder)
    assert renamed.returncode == 2
    assert f"runs another campaign ({session.file}): give this one a name" in renamed.stderr

    stopped = session.launch("--stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "stopped; continue with: rlcar campaign run " in stopped.stdout
    assert session.panes() == {}
    assert session.launch("--stop").stdout == f"nothing runs in the session rlcar-{session.name}\n"


@pytest.mark.long
@needs_tmux
def test_what_the_campaign_refuses_is_said_at_the_launch(session):
    session.file.write_text("slots: 1\njobs:\n  - name: first\n    algorithm: nosuch\n")
    done = session.launch("--no-tensorboard")
    assert done.returncode == 2
    assert "launch: the campaign has ended: " in done.stderr
    assert "nosuch" in done.stderr


@needs_tmux
def test_a_dry_run_starts_nothing(session):
    done = session.launch("--dry-run", "--", "--slots", "3")
    assert done.returncode == 0, done.stderr
    command = f"{VENV}/bin/rlcar campaign run {session.file} --runs {session.runs} --slots 3"
    assert done.stdout.splitlines()[0].rstrip() == f"would start    campaign: {command}"
    assert done.stdout.endswith("3 changes would be made; nothing was changed\n")
    assert session.panes() == {}
    assert list(session.folder.iterdir()) == [session.file]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name the file of a campaign: launch FILE"),
        (["nosuch.yaml"], "nosuch.yaml does not exist: name the file of a campaign"),
        (["tiny.yaml", "other.yaml"], "one campaign at a time: launch tiny.yaml and other.yaml"),
        (["tiny.yaml", "--slots", "3"], "options of rlcar campaign run come after --"),
        (["tiny.yaml", "--name", "a.b"], "--name 'a.b' is not a name: use letters"),
        (["tiny.yaml", "--name", "-t"], "--name '-t' is not a name"),
        (["tiny.yaml", "--metrics-port", "70000"], "port 70000 is not a number from 1 to 65535"),
        (["tiny.yaml", "--runs"], "--runs needs a value"),
        (["tiny.yaml", "--runs", "a\nb"], "--runs holds a line end: name another folder"),
        (["tiny.yaml", "--venv", "/nowhere"], "/nowhere holds no rlcar: run deploy/host/setup"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, options, message):
    (tmp_path / "tiny.yaml").write_text(TINY)
    done = run(LAUNCH, *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("launch: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@needs_tmux
def test_a_port_of_another_program_is_named(session):
    server = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]
    process = subprocess.Popen([*server, str(session.metrics_port)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_answering(session.metrics_port), 20)
        done = session.launch("--dry-run")
    finally:
        process.terminate()
        process.wait()
    assert done.returncode == 2
    assert f"port {session.metrics_port} is in use by another program" in done.stderr
    assert "choose another with --metrics-port" in done.stderr


# In place of systemd's, which needs a login: it keeps a file for each service that is active.
SYSTEMCTL = """#!/bin/sh
folder=$(dirname "$0")
for unit; do :; done
echo "$*" >> "$folder/log"
case "$*" in
  *is-active*) test -e "$folder/$unit" ;;
  *restart*) touch "$folder/$unit" "$RUNS/_campaign/process.json" ;;
  *disable*) rm "$folder/$unit" ;;
esac
"""


def test_services_of_the_user_are_valid_and_are_removed_by_a_stop(session):
    programs = session.folder / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text(SYSTEMCTL)
    (programs / "systemctl").chmod(0o755)
    home = session.folder / "a home with 100%"
    variables = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(home)}
    variables |= {"RUNS": str(session.runs), "XDG_CONFIG_HOME": ""}

    def launch(*options: object) -> str:
        command = [str(word) for word in (LAUNCH, *session.options, "--systemd", *options)]
        done = subprocess.run(
            command,
            cwd=session.folder,
            env=ENVIRONMENT | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = launch("--", "--slots", "2")
    units = home / ".config/systemd/user"
    name = f"rlcar-{session.name}"
    names = [f"{name}-{part}.service" for part in ("campaign", "monitor", "tensorboard")]
    assert sorted(path.name for path in units.iterdir()) == names
    assert "loginctl enable-linger" in first
    campaign = (units / names[0]).read_text()
    assert f"campaign run {session.file} --runs {session.runs} --slots 2" in campaign
    assert f"RestartPreventExitStatus={GivenUpError.exit_code}\n" in campaign
    assert f"enable --quiet {names[0]}" in (programs / "log").read_text()
    if shutil.which("systemd-analyze"):
        paths = [units / name for name in names]
        verify = ("systemd-analyze", "verify", "--recursive-errors=yes", "--man=no")
        checked = run(*verify, *paths, cwd=units)
        assert (checked.returncode, checked.stderr) == (0, "")
    assert "everything is as it should be: nothing changed\n" in launch()
    assert launch("--stop").splitlines()[0] == "stop     campaign monitor tensorboard"
    assert list(units.iterdir()) == []
    assert launch("--stop") == f"nothing runs in the session {name}\n"


def is_answering(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
    except httpx.HTTPError:
        return False
