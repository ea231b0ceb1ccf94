"""The budget of kernel launches on a GPU, counted without one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CUDA = ROOT / ".venv-cuda"


@pytest.mark.long
@pytest.mark.skipif(not CUDA.exists(), reason="needs `make .venv-cuda`, as `make test` does")
def test_a_train_step_of_a_thousand_transitions_launches_few_kernels():
    done = subprocess.run(
        [sys.executable, "benchmarks/kernels.py", "size1m_64x16"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(CUDA), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kernels = int(re.search(r"figure size1m_64x16_kernels=(\d+)", done.stdout).group(1))
    assert 500 < kernels <= 1_450  # 1,348 when this was written
