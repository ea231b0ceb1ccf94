"""A second process reuses what the first has compiled, and never reads half an entry."""

import os
import subprocess
import sys
import threading
from unittest import mock

import jax
import pytest
from jax._src.lru_cache import LRUCache

from cluster.sweeps import trial
from cluster.training.learner_actor import LearnerProcess
from cluster.training.simulator import SimulatorProcess
from rlcar.devices import compile_cache
from rlcar.devices.compile_cache import keep_compiled_code, write_cache_entries_atomically
from tests.support.untrained_run import untrained

UNTRAINED = "the folder of a run"
BEFORE_JAX = "keep_compiled_code(); import jax"
AFTER_JAX = "import jax; keep_compiled_code()"  # as in a process that Ray starts
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
    code = f"from rlcar.devices.compile_cache import keep_compiled_code\n{first}\n{COUNT}"
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


def test_nobody_reads_half_an_entry(tmp_path):
    value = os.urandom(1 << 25)
    read, written = [], threading.Event()

    def reads():
        cache = LRUCache(str(tmp_path), max_size=-1)
        while not written.is_set():
            read.append(cache.get("one"))

    reader = threading.Thread(target=reads, daemon=True)
    reader.start()
    try:
        for _ in range(5):
            LRUCache(str(tmp_path), max_size=-1).put("one", value)
    finally:
        written.set()
    reader.join()
    lengths = {None if x is None else len(x) for x in read}
    assert len(value) in lengths
    assert lengths <= {None, len(value)}
    assert [path.name for path in tmp_path.iterdir()] == ["one-cache"]


def test_half_an_entry_of_a_killed_process_is_replaced(tmp_path):
    cache = LRUCache(str(tmp_path), max_size=-1)
    (tmp_path / "one-cache").write_bytes(b"half")
    cache.put("one", b"a whole one")
    assert cache.get("one") == b"a whole one"


def test_a_cache_that_cannot_be_written_leaves_nothing(tmp_path):
    cache = LRUCache(str(tmp_path), max_size=-1)
    (tmp_path / "one-cache").mkdir()
    with pytest.raises(OSError, match="one-cache"):
        cache.put("one", b"a whole one")
    assert [path.name for path in tmp_path.iterdir()] == ["one-cache"]


def test_under_a_limit_of_size_the_oldest_still_goes(tmp_path):
    cache = LRUCache(str(tmp_path), max_size=15)
    for key in "one", "two":
        cache.put(key, b"0123456789")
    assert cache.get("one") is None
    assert cache.get("two") == b"0123456789"


def test_a_second_call_changes_nothing():
    put = LRUCache.put
    write_cache_entries_atomically()
    assert LRUCache.put is put


class PreparedError(Exception):
    """Raised in place of the preparation."""


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--local"),
        ("train",),
        ("evaluate", "runs/none"),
        ("profile", "sim"),
        ("dream", "runs/none"),
        ("play",),
        ("render", "runs/none"),
        ("drive", "http://127.0.0.1:1"),
        ("watch", UNTRAINED),
        ("serve", "--lane", "realtime", "--direct", "--page"),
    ],
)
def test_every_verb_that_compiles_prepares_jax(rlcar, monkeypatch, arguments):
    def prepare():
        raise PreparedError

    monkeypatch.setattr(compile_cache, "prepare_jax", prepare)
    run = [str(untrained()) if argument is UNTRAINED else argument for argument in arguments]
    with pytest.raises(PreparedError):
        rlcar(*run)


@pytest.mark.parametrize("start", [SimulatorProcess, LearnerProcess])
def test_every_actor_that_compiles_prepares_jax(monkeypatch, start):
    def prepare():
        raise PreparedError

    module = sys.modules[start.__module__]
    for name in ("logs", "_step_forward"):
        monkeypatch.setattr(module, name, mock.Mock(), raising=False)
    monkeypatch.setattr(module, "prepare_jax", prepare)
    with pytest.raises(PreparedError):
        start(None, 0, 0)


def test_a_trial_of_a_sweep_prepares_jax(monkeypatch, tmp_path):
    def prepare():
        raise PreparedError

    for name in ("JAX_PLATFORMS", "XLA_FLAGS"):
        monkeypatch.setenv(name, os.environ[name])
    monkeypatch.setattr(trial.ray, "get_gpu_ids", list)
    monkeypatch.setattr(trial, "prepare_jax", prepare)
    with pytest.raises(PreparedError):
        trial.run_trial({}, None, tmp_path)


def test_the_settings_of_the_user_are_kept(monkeypatch):
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
