"""Nothing in a file is executed; what is no policy is refused in one sentence, and soon."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rlcar.errors import RegistryError
from rlcar.registry import Registry
from rlcar.registry.exchange import imported
from rlcar.registry.pickled import CHILD
from serve.policy.policy import load_policy
from tests.registry.hostile import (
    documented_params,
    executing_pickles,
    lying_safetensors,
    other_pickles,
)

SLOWEST_S = 30.0


def _refusal(registry: Registry, path: Path) -> str:
    """Imports a file that must be refused; returns the sentence."""
    began_s = time.monotonic()
    with pytest.raises(RegistryError) as raised:
        registry.import_(path)
    assert time.monotonic() - began_s < SLOWEST_S
    sentence = str(raised.value)
    assert sentence.isprintable(), sentence
    assert len(sentence) < 500
    assert path.name in sentence
    return sentence


def test_no_pickle_runs_anything(registry, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "hostile.pkl"
    hostile = executing_pickles(canary)
    assert len(hostile) >= 15
    for name, data in hostile.items():
        path.write_bytes(data)
        assert "which is not on the list" in _refusal(registry, path), name
        assert not canary.exists(), name
    assert registry.versions() == []


def test_those_pickles_are_dangerous_indeed(tmp_path):
    """Proves that the canary sings when the ordinary unpickler reads them."""
    canary, path = tmp_path / "canary", tmp_path / "hostile.pkl"
    program = (
        "import os, pathlib, pickle, sys\n"
        "canary, silent = pathlib.Path(sys.argv[1]), []\n"
        "for path in sorted(pathlib.Path(sys.argv[2]).iterdir()):\n"
        "    canary.unlink(missing_ok=True)\n"
        "    try: pickle.loads(path.read_bytes())\n"
        "    except Exception: pass\n"
        "    if not canary.exists(): silent.append(path.name)\n"
        "print(*silent)"
    )
    files = tmp_path / "files"
    files.mkdir()
    for name, data in executing_pickles(canary).items():
        (files / name).write_bytes(data)
    command = [sys.executable, "-W", "ignore", "-c", program, str(canary), str(files)]
    silent = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert silent.stdout.strip() == ""
    path.unlink(missing_ok=True)


def test_even_code_that_runs_in_the_child_could_do_nothing(tmp_path):
    """The list of names is the first wall; this is the second."""
    program = (
        "import os, runpy, socket, subprocess, sys\n"
        "child = runpy.run_path(sys.argv[1])\n"
        "child['_give_up_everything'](1 << 29, 10)\n"
        "attempts = {\n"
        "    'write': lambda: open(sys.argv[2], 'w'),\n"
        "    'read': lambda: open('/etc/passwd').read(),\n"
        "    'connect': socket.socket,\n"
        "    'run': lambda: subprocess.run(['touch', sys.argv[2]], check=True),\n"
        "    'shell': lambda: os.system('touch ' + sys.argv[2]) and 1 / 0,\n"
        "    'eat': lambda: bytearray(1 << 30),\n"
        "    'regain': lambda: child['resource'].setrlimit(7, (9, 9)),\n"
        "}\n"
        "for name, attempt in attempts.items():\n"
        "    try: attempt()\n"
        "    except Exception: continue\n"
        "    print(name)\n"
    )
    canary = tmp_path / "canary"
    command = [sys.executable, "-I", "-S", "-c", program, str(CHILD), str(canary)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={})
    assert done.stdout == ""
    assert not canary.exists()


def test_pickles_that_eat_memory_or_lie_are_refused(registry, tmp_path):
    path = tmp_path / "hostile.pkl"
    for name, data in other_pickles().items():
        path.write_bytes(data)
        assert _refusal(registry, path), name
    assert registry.versions() == []


def test_safetensors_that_lie_are_refused(registry, run, tmp_path):
    registry.publish(run)
    good = registry.export(1, tmp_path / "good.safetensors").read_bytes()
    path = tmp_path / "hostile.safetensors"
    for name, data in lying_safetensors(good).items():
        path.write_bytes(data)
        assert _refusal(registry, path), name
    assert [one.number for one in registry.versions()] == [1]
    path.write_bytes(good)
    assert registry.import_(path).number == 2


def test_a_file_with_any_byte_changed_is_refused_or_harmless(registry, run, tmp_path):
    """Either the change is noticed, or it makes other finite weights or another description."""
    registry.publish(run, "a good one")
    good = registry.export(1, tmp_path / "good.safetensors").read_bytes()
    path, rng, refusals = tmp_path / "changed.safetensors", np.random.default_rng(0), []
    header_size = int.from_bytes(good[:8], "little") + 8
    for _ in range(600):
        changed = bytearray(good)
        for place in rng.integers(header_size + 64, size=rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            arrays, metadata, _ = imported(path, "")
        except RegistryError as error:
            refusals.append(str(error))
        else:
            assert all(np.isfinite(array).all() for array in arrays.values())
            assert metadata["algorithm"] == "documented"
    assert len(refusals) > 300
    assert all(sentence.isprintable() for sentence in refusals)


def test_what_is_no_plain_file_is_refused_without_waiting(registry, run, tmp_path):
    registry.publish(run)
    good = registry.export(1, tmp_path / "good.safetensors")
    link, fifo, folder = (tmp_path / name for name in ("link.pkl", "fifo.pkl", "folder.pkl"))
    link.symlink_to(good)
    os.mkfifo(fifo)
    folder.mkdir()
    for path in (link, fifo, folder, tmp_path / "absent.pkl"):
        assert "cannot read" in _refusal(registry, path)
    with pytest.raises(RegistryError, match="cannot read /dev/zero"):
        registry.import_("/dev/zero")
    with pytest.raises(RegistryError, match="cannot read"):
        registry.import_("a\0b.pkl")
    large = tmp_path / "large.pkl"
    with large.open("wb") as file:
        file.truncate(1 << 30)
    assert "more than" in _refusal(registry, large)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_legacy_policy_is_read_from_every_protocol(registry, tmp_path, protocol, dtype):
    params = documented_params(dtype)
    params["encoder/~/linear_0"]["w"] = np.asfortranarray(params["encoder/~/linear_0"]["w"])
    params["decoder/~/linear_0"] = {"w": np.zeros((32, 64), dtype)}
    path = tmp_path / "model.pkl"
    about = {"episode": 812, "best_reward": 3.5, "note": "the fast one"}
    path.write_bytes(pickle.dumps({"params": params, "metadata": about}, protocol=protocol))
    version = registry.import_(path)
    assert version.metadata["description"] == "episode 812; best_reward 3.5; note the fast one"
    assert version.metadata["lineage"]["imported"].startswith("model.pkl ")
    for module in ("encoder/~/linear_0", "actor/~/linear_2"):
        np.testing.assert_array_equal(
            registry.open(1).arrays[f"networks.{module}.w"], params[module]["w"].astype("float32")
        )
    policy = load_policy(registry, 1)
    action, _ = policy.act((), np.full((1, 6), 0.5, np.float32), np.ones(1, bool))
    seen = np.full(6, 0.5)
    for layer in ("encoder/~/linear_0", "encoder/~/linear_1"):
        seen = seen @ params[layer]["w"] + params[layer]["b"]
        seen = np.maximum(seen, 0.0) if layer.endswith("0") else seen
    for layer in ("actor/~/linear_0", "actor/~/linear_1", "actor/~/linear_2"):
        seen = seen @ params[layer]["w"] + params[layer]["b"]
        seen = seen if layer.endswith("2") else np.maximum(seen, 0.0)
    np.testing.assert_allclose(action[0], np.tanh(seen), rtol=0, atol=1e-4)


def test_a_legacy_policy_of_jax_arrays_is_read_too(registry, tmp_path):
    import jax

    path = tmp_path / "model.pickle"
    params = jax.tree.map(jax.numpy.asarray, documented_params())
    path.write_bytes(pickle.dumps({"params": params}))
    assert registry.import_(path, "from JAX").metadata["description"] == "from JAX"
    stored = registry.open(1).arrays["networks.actor/~/linear_0.w"]
    np.testing.assert_array_equal(stored, params["actor/~/linear_0"]["w"])


def test_what_was_exported_comes_back_the_same(registry, run, tmp_path):
    version = registry.publish(run, "a good one")
    path = registry.export("latest", tmp_path / "one.safetensors")
    other = Registry(tmp_path / "others")
    again = other.import_(path)
    assert again.metadata | {"lineage": None} == version.metadata | {"lineage": None}
    assert again.metadata["lineage"]["commit"] == version.metadata["lineage"]["commit"]
    for name, array in registry.open(1).arrays.items():
        np.testing.assert_array_equal(other.open(1).arrays[name], array)
