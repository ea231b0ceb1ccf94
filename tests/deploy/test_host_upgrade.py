"""Upgrades and rollbacks: service files belong to an environment; only what changed restarts."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from benchmarks.processes import free_port
from tests.support.installed_host import PYTHON, ROOT, running

INSTALL = "deploy/host/install"
PAGES = ("docs/how-to/servers.md", "docs/how-to/clouds.md")
COMMON = (ROOT / "deploy/host/common.sh").read_text()
UV_VERSION = re.search(r"^uv_version=(.*)$", COMMON, re.MULTILINE).group(1)
# In place of the package manager, because an environment takes minutes to build.
UV = f"""#!/bin/sh
case $1 in
  --version) echo 'uv {UV_VERSION}' ;;
  sync)
    mkdir -p "$UV_PROJECT_ENVIRONMENT/bin"
    ln -s /bin/true "$UV_PROJECT_ENVIRONMENT/bin/python"
    ln -s /bin/true "$UV_PROJECT_ENVIRONMENT/bin/rlcar"
    ;;
esac
"""


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Site:
    """A host below a folder, and checkouts of two releases of which the second is newer."""

    def __init__(self, folder: Path):
        self.root, self.programs = folder / "host", folder / "programs"
        self.opt = self.root / "opt/rlcar"
        write_program(self.opt / "tools/bin/uv", UV)
        self.programs.mkdir()
        self.old, self.new = (self._checkout(folder / name) for name in ("old", "new"))
        for name in ("systemd/rlcar-serve.service", "supervisor/rlcar-service"):
            path = self.old / "deploy" / name
            text = path.read_text()
            assert "--wait-for-model" in text
            path.write_text(text.replace(" --wait-for-model", ""))

    def _checkout(self, folder: Path) -> Path:
        shutil.copytree(ROOT / "deploy", folder / "deploy")
        for page in PAGES:
            (folder / page).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / page, folder / page)
        (folder / "uv.lock").write_text(folder.name)
        return folder

    def install(self, checkout: Path, *options: object) -> subprocess.CompletedProcess[str]:
        """Runs the install script of a checkout, with `programs` first in the path."""
        return self.run([checkout / INSTALL, "--root", self.root, *self.given(), *options])

    def given(self) -> list[object]:
        """Returns the options of all runs."""
        return ["--serve-port", free_port(), "--python", PYTHON]

    def run(self, command: list[object]) -> subprocess.CompletedProcess[str]:
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [str(word) for word in command],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def environment(self, link: str = "current") -> str:
        return os.readlink(self.opt / link)

    def waits_for_model(self, init: str) -> bool:
        """Whether the installed server has the option that only the newer release knows."""
        name = {
            "systemd": "etc/systemd/system/rlcar-serve.service",
            "supervisor": "opt/rlcar/bin/rlcar-service",
        }[init]
        return "--wait-for-model" in (self.root / name).read_text()


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.mark.parametrize("init", ["systemd", "supervisor"])
def test_a_rollback_returns_to_the_service_files_of_the_environment(site, init):
    folder = {"systemd": "etc/systemd/system", "supervisor": "etc/supervisor/conf.d"}[init]
    added = f"rlcar-added.{'service' if init == 'systemd' else 'conf'}"
    template = site.new / "deploy" / init / added
    template.write_text("[Unit]\n")
    options = ("--init", init, "--training", "first")
    for checkout in (site.old, site.new):
        done = site.install(checkout, *options)
        assert done.returncode == 0, done.stderr
    assert site.waits_for_model(init)
    installed = site.root / folder / added
    shutil.copy(template, installed)

    dry = site.install(site.new, "--init", init, "--rollback", "--dry-run")
    assert "would use " in dry.stdout
    assert site.waits_for_model(init)
    for is_new in (False, True):
        done = site.install(site.new, "--init", init, "--rollback")
        assert done.returncode == 0, done.stderr
        assert site.waits_for_model(init) == is_new
        assert not installed.exists() or (is_new and init == "systemd")
    assert site.install(site.new, *options).returncode == 0
    again = site.install(site.new, *options)
    assert again.stdout == "everything is as it should be: nothing changed\n"


def test_service_files_that_change_without_the_environment_belong_to_it_too(site):
    site.install(site.old, "--init", "systemd")
    before = site.environment()
    unit = site.old / "deploy/systemd/rlcar-serve.service"
    unit.write_text(unit.read_text() + "# corrected\n")
    site.install(site.old, "--init", "systemd")
    assert site.environment() == before
    site.install(site.new, "--init", "systemd")
    site.install(site.new, "--init", "systemd", "--rollback")
    assert site.environment() == before
    installed = site.root / "etc/systemd/system/rlcar-serve.service"
    assert installed.read_bytes() == unit.read_bytes()


def test_an_environment_without_service_files_is_refused_and_nothing_is_changed(site):
    for checkout in (site.old, site.new):
        site.install(checkout, "--init", "systemd")
    new, old = site.environment(), site.environment("previous")
    shutil.rmtree(f"{old}/share/rlcar")
    done = site.install(site.new, "--init", "systemd", "--rollback")
    assert done.returncode == 2
    assert done.stderr.startswith(f"install: {old} holds no service files (share/rlcar): check out")
    assert done.stderr.count("\n") == 1
    assert (site.environment(), site.environment("previous")) == (new, old)
    assert site.waits_for_model("systemd")


@pytest.mark.parametrize("killed_at", [".rollback", "previous.next", "current", "previous"])
def test_an_interrupted_rollback_is_completed_by_the_next_one(site, killed_at):
    for checkout in (site.old, site.new):
        site.install(checkout, "--init", "systemd")
    new, old = site.environment(), site.environment("previous")
    write_program(
        site.programs / "mv",
        f'#!/bin/sh\nfor target; do :; done; [ "$target" != {site.opt}/{killed_at} ] || '
        'exec kill -9 $PPID\nexec /bin/mv "$@"\n',
    )
    killed = site.install(site.new, "--init", "systemd", "--rollback")
    assert killed.returncode == -9
    (site.programs / "mv").unlink()
    done = site.install(site.new, "--init", "systemd", "--rollback")
    assert done.returncode == 0, done.stderr
    assert (site.environment(), site.environment("previous")) == (old, new)
    assert not site.waits_for_model("systemd")
    assert not (site.opt / ".rollback").exists()
    site.install(site.new, "--init", "systemd", "--rollback")
    assert (site.environment(), site.environment("previous")) == (new, old)


def test_an_interrupted_rollback_is_forgotten_after_another_upgrade(site):
    for checkout in (site.old, site.new):
        site.install(checkout, "--init", "systemd")
    new, old = site.environment(), site.environment("previous")
    (site.opt / ".rollback").write_text(f"{old}\n")
    site.install(site.old, "--init", "systemd")
    site.install(site.old, "--init", "systemd", "--rollback")
    assert (site.environment(), site.environment("previous")) == (new, old)


@pytest.mark.parametrize(
    ("init", "affects"),
    [
        (
            "systemd",
            {
                "docs/how-to/servers.md": False,
                "deploy/host/sysctl.conf": False,
                "deploy/systemd/rlcar-backup.timer": False,
                "deploy/systemd/rlcar-backup.service": False,
                "deploy/systemd/rlcar-serve.service": True,
                "deploy/systemd/rlcar-.service.d/10-hardening.conf": True,
            },
        ),
        (
            "supervisor",
            {
                "docs/how-to/clouds.md": False,
                "deploy/supervisor/rlcar.cron": False,
                "deploy/logrotate/rlcar": False,
                "deploy/supervisor/rlcar-train.conf": True,
                "deploy/supervisor/rlcar-service": True,
                "uv.lock": True,
            },
        ),
    ],
    ids=["systemd", "supervisor"],
)
def test_only_what_affects_the_services_restarts_them(site, init, affects):
    options = ("--init", init, "--training", "first")
    site.install(site.new, *options)
    mark = site.opt / ".restart"
    mark.unlink()
    for name, is_restarted in affects.items():
        with (site.new / name).open("a") as file:
            file.write("# changed\n")
        done = site.install(site.new, *options)
        assert "changes made" in done.stdout, name
        assert mark.exists() == is_restarted, name
        mark.unlink(missing_ok=True)


def test_a_dry_run_of_uninstalling_is_possible_while_the_services_run(site):
    site.install(site.new, "--init", "systemd")
    sleeper = Path(site.environment()) / "bin/sleeper"
    shutil.copy("/bin/sleep", sleeper)
    with running([str(sleeper), "600"]):
        dry = site.install(site.new, "--uninstall", "--dry-run")
        assert dry.returncode == 0, dry.stderr
        assert f"would remove {site.opt}" in dry.stdout
        assert site.install(site.new, "--uninstall").returncode == 2


def test_only_root_can_lock_out_other_runs(site):
    site.install(site.new, "--init", "systemd")
    assert stat.S_IMODE((site.opt / ".lock").stat().st_mode) == 0o600
    # Any user can lock a folder that it can read.
    with running(["flock", str(site.opt), "sleep", "600"]):
        done = site.install(site.new, "--init", "systemd")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("options", "needed_mb"), [((), 6000), (("--gpu",), 24000)])
def test_a_full_disk_is_one_sentence_unless_nothing_is_built(site, options, needed_mb):
    def df(free_mb: int) -> None:
        lines = f"Filesystem 1048576-blocks Used Available\n/dev/disk 99999 1 {free_mb}"
        write_program(site.programs / "df", f"#!/bin/sh\necho '{lines}'\n")

    df(needed_mb - 1)
    done = site.install(site.new, "--init", "systemd", *options)
    assert done.returncode == 2
    assert f"has {needed_mb - 1} MB free, and rlcar needs {needed_mb} MB for two" in done.stderr
    df(needed_mb)
    assert site.install(site.new, "--init", "systemd", *options).returncode == 0
    df(1)
    done = site.install(site.new, "--init", "systemd", *options)
    assert done.stdout == "everything is as it should be: nothing changed\n"


class LiveSite(Site):
    """A host whose root is that of this machine, covered by layers that only the script sees."""

    LAYERS = """
for name in etc opt var; do
  mkdir -p "$1/$name" "$1/$name.work"
  mount -t overlay -o "lowerdir=/$name,upperdir=$1/$name,workdir=$1/$name.work" none "/$name"
done
shift
exec "$@"
"""

    def inside(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Runs a command in a mount namespace with the layers."""
        layers = ["unshare", "--mount", "sh", "-euc", self.LAYERS, "layers", self.root]
        return self.run([*layers, *command])

    def install(self, checkout: Path, *options: object) -> subprocess.CompletedProcess[str]:
        return self.inside(checkout / INSTALL, *self.given(), *options)

    def record(self, program: str, script: str = "") -> None:
        """Lets a program write its command lines down, in place of the real one."""
        log = self.programs / "log"
        write_program(self.programs / program, f'#!/bin/sh\necho "$*" >> {log}\n{script}\n')

    def calls(self) -> list[str]:
        """Returns the recorded command lines since the last call."""
        log = self.programs / "log"
        lines = log.read_text().splitlines()
        log.write_text("")
        return lines


@pytest.fixture
def live(tmp_path) -> LiveSite:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting layers in a namespace of their own needs root and unshare")
    site = LiveSite(tmp_path)
    tried = site.inside("true")
    if tried.returncode:
        pytest.skip(f"layers cannot be mounted here: {tried.stderr.strip()}")
    return site


def test_systemd_starts_what_is_added_and_restarts_only_what_changed(live):
    live.record("systemctl")

    def run(checkout: Path, *options: str) -> list[str]:
        done = live.install(checkout, "--init", "systemd", *options)
        assert done.returncode == 0, done.stderr
        assert not (live.opt / ".restart").exists()
        return live.calls()

    def restarts(calls: list[str]) -> list[str]:
        return [one for one in calls if "restart" in one.split()[0]]

    calls = run(live.old, "--training", "first")
    assert "start --no-block rlcar-train@first.service" in calls
    # A template, such as rlcar-pipeline@.timer, has no name until somebody gives it one.
    timers = {path.name for path in (ROOT / "deploy/systemd").glob("*[!@].timer")}
    for verb in ("enable", "start"):
        words = [one.split() for one in calls if one.startswith(f"{verb} ")]
        assert any(timers <= set(line) for line in words)

    calls = run(live.old, "--training", "night")
    assert calls.index("enable --quiet rlcar-train@night.service") < calls.index(
        "start --no-block rlcar-train@night.service"
    )
    assert restarts(calls) == []
    calls = run(live.new, "--training", "night")
    assert "restart rlcar-train@night.service" in restarts(calls)
    assert "restart rlcar-train@first.service" not in restarts(calls)
    calls = run(live.new, "--rollback")
    assert calls[0] == "daemon-reload"
    assert restarts(calls) == [
        "restart rlcar-monitor.service",
        "try-restart rlcar-spot-watch.service",
        "try-restart rlcar-train@*.service",
    ]


def test_a_rollback_restarts_the_trainings_that_supervisor_runs(live):
    state = "echo 'rlcar-train-first  RUNNING  pid 1'; echo 'rlcar-train-night  STOPPED  now'"
    live.record("supervisorctl", f"[ $1 != status ] || {{ {state}; }}")
    for checkout in (live.old, live.new):
        done = live.install(
            checkout, "--init", "supervisor", "--training", "first", "--training", "night"
        )
        assert done.returncode == 0, done.stderr
    live.calls()
    done = live.install(live.new, "--init", "supervisor", "--rollback")
    assert done.returncode == 0, done.stderr
    calls = live.calls()
    assert [one for one in calls if one.startswith("restart ")] == [
        "restart rlcar-monitor",
        "restart rlcar-train-first",
    ]
    assert calls.index("update") < calls.index("restart rlcar-monitor")
