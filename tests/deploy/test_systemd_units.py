"""The units of systemd: valid, isolated, and stopped with enough time to save."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rlcar.cli.curriculum import FAILED_EXIT_CODE
from rlcar.errors import GivenUpError
from tests.support.installed_host import ROOT, install

UNITS = ROOT / "deploy" / "systemd"
SERVICES = [
    "rlcar-train@first",
    "rlcar-campaign@night",
    "rlcar-pipeline@nightly",
    "rlcar-serve",
    "rlcar-monitor",
    "rlcar-backup",
    "rlcar-backup-verify",
    "rlcar-backup-prune",
    "rlcar-backup-retain",
    "rlcar-spot-watch",
]
# Of 10; 0 is best. Most services of Debian have more than 9.
MAX_EXPOSURE = 2.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing",
)


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """Returns the installed units, with the paths of programs that exist here."""
    root = tmp_path_factory.mktemp("host")
    done = install(root, "--init", "systemd", "--spot")
    assert done.returncode == 0, done.stderr
    folder = root / "etc/systemd/system"
    for unit in folder.glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/rlcar/", f"{root}/opt/rlcar/"))
    return folder


def test_documents_name_units_that_exist():
    names = {unit.partition("@")[0] for unit in SERVICES}
    pages = [*(ROOT / "docs" / "runbooks").glob("*.md"), *(ROOT / "docs" / "how-to").glob("*.md")]
    commands = re.compile(r"(?:systemctl [a-z-]+|journalctl -[a-z]*u) ([^`;|#\n]*)")
    for page in pages:
        for words in commands.findall(page.read_text()):
            for unit in re.findall(r"rlcar-[a-z-]+(?![a-z-]*\.)", words):
                assert unit in names, f"{page.name}: {unit}"


def analyze(units: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:", "SYSTEMD_COLORS": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def verify(units: Path) -> subprocess.CompletedProcess[str]:
    names = [f"{name}.service" for name in SERVICES]
    names += [
        path.name for kind in ("timer", "slice", "target") for path in units.glob(f"*.{kind}")
    ]
    # Without --recursive-errors an unknown key is only a warning.
    return analyze(units, "verify", "--recursive-errors=yes", "--man=no", *names)


@needs_systemd
def test_every_unit_is_valid(units):
    done = verify(units)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(
    ("unit", "right", "wrong"),
    [
        ("rlcar-serve.service", "MemoryMax=", "MemoryMaximum="),
        ("rlcar-serve.service", "Restart=on-failure", "Restart=sometimes"),
        ("rlcar-backup.timer", "OnCalendar=*-*-* 02:30:00", "OnCalendar=25:30"),
        ("rlcar-train@.service", "current/bin/rlcar train", "current/bin/racer train"),
    ],
)
def test_a_wrong_unit_is_noticed(units, tmp_path, unit, right, wrong):
    copy = tmp_path / "units"
    shutil.copytree(units, copy)
    text = (copy / unit).read_text()
    assert right in text
    (copy / unit).write_text(text.replace(right, wrong))
    assert verify(copy).returncode != 0


@needs_systemd
@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_isolated(units, service):
    done = analyze(
        units, "security", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}",
        f"{service}.service",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_every_service_of_the_folder_is_tested():
    names = {re.sub("@.*", "@", name) for name in SERVICES}
    assert {path.stem for path in UNITS.glob("*.service")} == names


def _service(name: str) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # keys of units are written in capitals
    parser.read([UNITS / f"{name}.service", UNITS / "rlcar-.service.d/10-hardening.conf"])
    return parser["Service"]


def test_stopping_signals_the_main_process_and_waits_for_its_checkpoint():
    for name in ("rlcar-train@", "rlcar-campaign@", "rlcar-serve"):
        service = _service(name)
        assert service["KillMode"] == "mixed"
        assert service["Restart"] == "on-failure"
        # A training that was asked to stop has not failed.
        assert service["SuccessExitStatus"] == "130"
    assert _service("rlcar-campaign@")["RestartPreventExitStatus"] == str(GivenUpError.exit_code)
    # RAY_JOB_STOP_WAIT_TIME_S of our own jobs is shorter than this.
    assert _service("rlcar-train@")["TimeoutStopSec"] == "5min"
    assert _service("rlcar-pipeline@")["TimeoutStopSec"] == "5min"


def test_a_curriculum_that_has_failed_is_not_started_again():
    assert _service("rlcar-train@")["RestartPreventExitStatus"] == str(FAILED_EXIT_CODE)
    supervisor = (UNITS.parent / "supervisor/rlcar-train.conf").read_text()
    assert f"exitcodes=0,{FAILED_EXIT_CODE},130" in supervisor


def test_no_service_can_write_outside_its_own_folders():
    for name in SERVICES:
        service = _service(re.sub("@.*", "@", name))
        assert service["ProtectSystem"] == "strict"
        writes_to_target = "backup" in name and name != "rlcar-backup-retain"
        assert service.get("ReadWritePaths") == ("-/mnt/backup" if writes_to_target else None)


def test_a_backup_target_with_a_blank_stays_one_word():
    # systemd splits $NAME at blanks, but not ${NAME}.
    for name in ("rlcar-backup", "rlcar-backup-verify", "rlcar-backup-prune"):
        assert "${RLCAR_BACKUP_TARGET}" in _service(name)["ExecStart"].split()
