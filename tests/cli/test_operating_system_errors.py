"""What the operating system refuses is one sentence, whichever verb meets it; never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.untrained_run import untrained

ROOT = Path(__file__).parents[2]
LONG = "n" * 300  # file systems allow 255 bytes


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--local", "--mode", "test", "--name", "x", "--runs", LONG],
        ["train", "--local", "--mode", "test", "--name", LONG],
        ["train", "--local", "--resume", LONG],
        ["train", "--local", "--config", LONG],
        ["tune", LONG],
        ["evaluate", LONG],
        ["dream", LONG],
        ["play", LONG],
        ["render", LONG, "--out", "lap.png"],
        ["render", "--sheet", "circuits", "--out", f"{LONG}.png"],
        ["serve", LONG, "--lane", "realtime"],
        ["serve", "--lane", "realtime", "--registry", LONG],
        ["watch", LONG],
        ["monitor", LONG],
        ["campaign", "run", LONG],
        ["tokens", "create", "car", "--tokens", LONG],
        ["tokens", "list", "--tokens", LONG],
        ["models", "list", "--registry", LONG],
        ["models", "publish", LONG],
        ["models", "import", LONG],
        ["models", "restore", LONG],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_a_name_that_is_too_long_is_one_sentence(rlcar, arguments):
    code, _, error = rlcar(*arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="may not mount a tmpfs here")
@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "publish", "RUN", "--registry", "models"],
        ["tokens", "create", "car", "--tokens", "tokens.json"],
        ["render", "--sheet", "circuits", "--out", "circuits.png"],
        ["train", "--local", "--mode", "test", "--runs", "runs"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_full_disk_is_one_sentence_and_leaves_no_part_of_a_file(tmp_path, arguments):
    run = untrained()
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a tmpfs here")
    try:
        (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096))
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "rlcar.cli",
                *(str(run) if a == "RUN" else a for a in arguments),
            ],
            cwd=disk,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        left = [path for path in disk.rglob("*") if path.is_file() and path.name != "ballast"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    # A lock holds nothing; a training had begun its run.
    parts = [path.name for path in left if path.suffix != ".lock"]
    assert parts == [] or arguments[0] == "train"


def test_no_temporary_folder_is_one_sentence_also_where_a_library_needs_it(tmp_path):
    """A container with a read-only root and no /tmp: Matplotlib has nowhere to keep its cache."""
    # The folders that Python tries are none, whoever runs this test.
    program = (
        "import sys, tempfile; tempfile._candidate_tempdir_list = lambda: ['/nowhere'];"
        "from rlcar.cli import main; sys.argv = ['rlcar', 'train', '--local', '--mode', 'test'];"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache"}
        | {"XDG_CONFIG_HOME": "/dev/null/config", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: No usable temporary directory"), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
