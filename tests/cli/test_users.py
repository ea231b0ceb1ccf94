"""Users as containers have them: no passwd entry, no HOME, or one that cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlcar.errors import UserError
from rlcar.system.user_folders import cache_folder, expanded, folder_for_sockets
from tests.support.tiny_run import SHORT_TRAINING

ROOT = Path(__file__).parents[2]
AS_NOBODY = ["unshare", "-U", "--map-user=12345"]
HOMES = ["unset", "missing", "read-only"]


def can_unshare():
    try:
        return subprocess.run([*AS_NOBODY, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not can_unshare(), reason="needs namespaces of users")


@pytest.fixture
def as_nobody(tmp_path):
    """Runs a command line as a user that the system does not know; returns code and output."""

    def run(home, *arguments, timeout_s=120, **variables):
        environment = os.environ | {"PYTHONPATH": str(ROOT), **variables}
        for name in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "RLCAR_TOKENS"):
            environment.pop(name, None)
        if home == "missing":
            environment["HOME"] = "/proc/no-such-home"  # nobody can make it
        if home == "read-only":
            folder = tmp_path / "home"
            folder.mkdir(exist_ok=True)
            folder.chmod(0o500)
            environment["HOME"] = str(folder)
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        done = subprocess.run(
            [*AS_NOBODY, sys.executable, "-m", "rlcar.cli", *map(str, arguments)],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 2), done.stderr
        if done.returncode == 2:
            assert done.stderr.startswith("error: ")
            assert len(done.stderr.splitlines()) == 1
        else:
            assert "WARNING" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


# What uses the home folder, what other commands do, and help, which reads no folder.
AT_HOME = [
    ("doctor", 0),
    ("serve --lane realtime", 2),  # there is no model yet
    ("tokens create a", 2),
]
ELSEWHERE = [
    ("tokens create a --tokens t.json", 0),
    ("models list", 0),
    ("monitor", 2),
    ("watch latest", 2),
    ("submit --address 127.0.0.1:9 -- train --mode test", 2),
]
HELP = [("--help", 0), ("serve --help", 0), ("tune --help", 0)]


@pytest.mark.parametrize(
    ("command", "code", "home"),
    [
        *((*command, home) for command in AT_HOME for home in HOMES),
        *((*command, home) for command in ELSEWHERE for home in ("unset", "read-only")),
        *((*command, "unset") for command in HELP),
    ],
)
def test_a_command_works_or_says_why_not(as_nobody, home, command, code):
    assert as_nobody(home, *command.split())[0] == code


def test_what_needs_a_home_folder_says_what_to_do(as_nobody):
    assert as_nobody("unset", "tokens", "list")[2] == (
        "error: ~/.config/rlcar/tokens.json: the home folder of user 12345 is not known: give the "
        "path without ~, or set HOME\n"
    )
    assert "/proc/no-such-home" in as_nobody("missing", "tokens", "create", "a")[2]


# With Ray, a home that can only be read is tried below; each training takes half a minute.
@pytest.mark.slow
@pytest.mark.parametrize(
    "home", [HOMES[0], *(pytest.param(one, marks=pytest.mark.long) for one in HOMES[1:])]
)
def test_a_training_in_one_process_works(as_nobody, home):
    code, out, _ = as_nobody(home, *SHORT_TRAINING, "--name", "a")
    assert code == 0
    assert "\nfigure env_steps=" in out
    assert as_nobody(home, "monitor", "runs/a")[0] == 0
    assert as_nobody(home, "models", "publish", "runs/a")[0] == 0


# For Ray all three are a home without a writable token; each training takes half a minute.
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    "home", ["read-only", *(pytest.param(one, marks=pytest.mark.long) for one in HOMES[:2])]
)
def test_a_training_on_ray_works_with_a_long_temporary_folder_too(as_nobody, tmp_path, home):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    few = ["--set", "training.env_steps=512", "--set", "training.evaluate_every_env_steps=512"]
    words = ["train", "--mode", "test", "--name", "a", "--simulators", "1", *few]
    words += ["--algorithm", "ppo"]  # the quickest to compile
    code, out, _ = as_nobody(home, *words, timeout_s=240, TMPDIR=str(long))
    assert code == 0
    assert "\nfigure env_steps=" in out


def test_a_folder_for_sockets_is_short_and_removed(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with folder_for_sockets("rlcar-test-", 30) as folder:
        assert len(folder) + 31 <= 107
        assert Path(folder).is_dir()
    assert not Path(folder).exists()
    with pytest.raises(UserError, match="set TMPDIR to a writable folder with a short path"):  # noqa: SIM117
        with folder_for_sockets("rlcar-test-", 100):
            pass


def test_nothing_is_cached_where_no_folder_can_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "caches"))
    assert cache_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() is None


def test_a_path_without_a_home_is_left_as_it_is():
    assert expanded("models") == Path("models")
    with pytest.raises(UserError, match="no-such-user-of-this-machine"):
        expanded("~no-such-user-of-this-machine/x")


def test_no_other_code_looks_for_the_home_folder():
    """It would fail for a user without one; `user_folders` says it in a sentence."""
    sources = [
        path for name in ("rlcar", "cluster", "serve") for path in ROOT.glob(f"{name}/**/*.py")
    ]
    looks = ("Path.home(", "expanduser(", "getuser(", "getpwuid(")
    found = [path.name for path in sources if any(one in path.read_text() for one in looks)]
    assert found == ["user_folders.py"]
