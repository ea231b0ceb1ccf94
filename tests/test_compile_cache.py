"""A second process finds what the first has compiled."""

import os
import subprocess
import sys

import jax
import pytest

from rlcar.compile_cache import keep_compiled_code

BEFORE_JAX = "keep_compiled_code(); import jax"
AFTER_JAX = "import jax; keep_compiled_code()"  # as in a process that Ray has started
COUNT = """
import jax.numpy as jnp
from jax._src import monitoring
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name))
jax.jit(lambda x: jnp.linalg.qr(x @ x.T)[0].sum())(jnp.ones((9, 9))).block_until_ready()
print(sum(name.endswith("compilation_cache/cache_hits") for name in hits))
"""


@pytest.mark.parametrize("first", [BEFORE_JAX, AFTER_JAX])
def test_the_second_process_compiles_nothing_again(tmp_path, first):
    code = f"from rlcar.compile_cache import keep_compiled_code\n{first}\n{COUNT}"
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME")},
        "XDG_CACHE_HOME": str(tmp_path),
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    hits = [
        int(
            subprocess.run(
                [sys.executable, "-c", code],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for _ in range(2)
    ]
    assert hits[0] == 0
    assert hits[1] > 0
    assert any((tmp_path / "rlcar" / "jax").rglob("*-cache"))


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/mine")
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    keep_compiled_code()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/mine"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    keep_compiled_code()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"].startswith("/cache/rlcar/jax/")


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        if name in os.environ:
            monkeypatch.setenv(name, os.environ[name])
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
