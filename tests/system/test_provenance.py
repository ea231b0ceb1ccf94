"""The records of a run name the commit also where there is no checkout."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_an_installed_program_takes_the_commit_from_its_image(tmp_path):
    (tmp_path / "rlcar").symlink_to(ROOT / "rlcar")
    # A copy, because the module looks for .git beside the file that it really is.
    (tmp_path / "provenance.py").write_text((ROOT / "rlcar/system/provenance.py").read_text())
    program = "import provenance; print(provenance.provenance(None)['commit'])"
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path), **given},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for given in ({"RLCAR_COMMIT": "abc123"}, {})
    ]
    assert said == ["abc123", "None"]
