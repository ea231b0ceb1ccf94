"""Versions are immutable, numbered once and checked; aliases move whole and can go back."""

import json
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rlcar.config import make_config
from rlcar.config.race import RANGE_PX, RAY_ANGLES_DEG
from rlcar.errors import RegistryError, UserError
from rlcar.evaluation.run_report import evaluate_run
from rlcar.registry import Registry
from rlcar.registry.version import manifest_bytes
from tests.support.untrained_run import untrained, write_run

ROOT = Path(__file__).parents[2]


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _folder(registry: Registry, number: int) -> Path:
    return Path(registry.place) / "versions" / f"{number:08d}"


def test_a_version_says_where_it_is_from_and_what_it_eats(registry, run):
    version = registry.publish(run, "a first one")
    assert version.number == 1
    assert registry.versions() == [version]
    metadata = version.metadata
    assert metadata["description"] == "a first one"
    assert metadata["algorithm"] == metadata["config"]["algorithm"] == "documented"
    assert metadata["lineage"]["run"] == "first"
    assert metadata["lineage"]["env_steps"] == 1000
    assert metadata["lineage"]["train_steps"] == 7
    assert metadata["lineage"]["parent"] is None
    assert [entry["name"] for entry in metadata["observation"]] == [
        *("ray_-45_deg", "ray_-22.5_deg", "ray_+0_deg", "ray_+22.5_deg", "ray_+45_deg"),
        "speed",
    ]
    assert metadata["observation"][0] | {"name": ""} == {
        "name": "",
        "unit": "150 px",
        "low": 0.0,
        "high": 1.0,
    }
    assert [entry["name"] for entry in metadata["action"]] == ["steering", "throttle"]
    assert [entry["name"] for entry in metadata["observation"][:-1]] == [
        f"ray_{angle:+g}_deg" for angle in RAY_ANGLES_DEG
    ]
    assert metadata["observation"][0]["unit"] == f"{RANGE_PX} px"


def test_what_is_opened_is_what_the_run_saved(registry, run):
    from rlcar.storage import checkpoint

    registry.publish(run)
    stored = checkpoint.load_arrays(run / "best", "policy")
    opened = registry.open("latest").arrays
    assert opened.keys() == stored.keys()
    for name, array in stored.items():
        np.testing.assert_array_equal(opened[name], array)


def test_versions_come_newest_first_in_numeric_order(registry, run):
    for _ in range(11):
        registry.publish(run)
    assert [one.number for one in registry.versions()] == list(range(11, 0, -1))
    assert registry.resolve("latest") == 11
    assert registry.resolve("7") == registry.resolve(7) == registry.resolve("007") == 7
    assert registry.version(11).metadata["lineage"]["parent"] == 10


@pytest.mark.parametrize(
    "name",
    [
        *("champion", "8", "-1", "", "latest", "../1", "1/../1", "٣", "1e0", "a" * 99),
        *("champion/x", "versions/00000001", "\0", "99999999999"),
    ],
)
def test_a_name_that_means_nothing_is_refused_in_one_sentence(registry, name):
    with pytest.raises(RegistryError) as raised:
        registry.resolve(name)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_no_run_is_refused(registry, tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        registry.publish(tmp_path)
    assert registry.versions() == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"checkpoint": NaN}', '{"checkpoint": "x", "drivers": {}}']
)
def test_a_report_that_nobody_can_read_is_named(registry, tmp_path, text):
    folder = shutil.copytree(untrained(), tmp_path / "copied")
    (folder / "report.json").write_text(text)
    with pytest.raises(RegistryError, match=r"cannot read .*report.json .*run rlcar evaluate"):
        registry.publish(folder)


def test_a_report_of_another_checkpoint_is_left_out(registry, tmp_path):
    folder = shutil.copytree(untrained(), tmp_path / "copied")
    (folder / "report.json").write_text('{"checkpoint": "step-000000009"}')
    assert registry.publish(folder).metadata["laps"] is None


def test_the_distributions_of_the_evaluation_are_published_with_its_report(registry, tmp_path):
    folder = shutil.copytree(untrained(), tmp_path / "copied")
    evaluate_run(folder)
    report = json.loads(registry.report(registry.publish(folder)))
    written = json.loads((folder / "reference.json").read_text())
    assert written == {**report["reference"], "checkpoint": report["checkpoint"]}
    assert len(report["reference"]["reward"]) == report["tracks"]
    (folder / "reference.json").write_text(json.dumps(written | {"checkpoint": "step-000000009"}))
    assert "reference" not in json.loads(registry.report(registry.publish(folder)))
    (folder / "reference.json").write_text("{")
    with pytest.raises(RegistryError, match=r"cannot read .*reference.json .*run rlcar evaluate"):
        registry.publish(folder)


def test_an_alias_moves_and_goes_back(registry, run):
    for _ in range(3):
        registry.publish(run)
    assert registry.promote(1).aliases == ("champion",)
    registry.promote("2")
    registry.promote("latest", "candidate")
    registry.promote("candidate")
    assert registry.aliases() == {"candidate": 3, "champion": 3}
    assert registry.rollback().number == 2
    assert registry.resolve("champion") == 2
    assert registry.rollback().number == 1
    with pytest.raises(RegistryError, match="no earlier version"):
        registry.rollback()
    registry.promote(3)
    assert registry.rollback().number == 1
    values = [record.version for record in registry.history("champion")]
    assert values == [1, 2, 3, 2, 1, 3, 1]


def test_a_damaged_move_of_an_alias_counts_as_never_made(registry, run):
    for number in (1, 2):
        registry.publish(run)
        registry.promote(number)
    last = max((Path(registry.place) / "aliases" / "champion").iterdir())
    last.write_bytes(last.read_bytes()[:-5])
    assert registry.resolve("champion") == 1
    assert registry.version(1).aliases == ("champion",)
    assert [record.why for record in registry.history("champion")] == ["promoted", "damaged"]
    registry.promote(2)
    assert registry.rollback().number == 1


@pytest.mark.parametrize("files", [{}, {"../../secret": {"sha256": ""}}, [], {"x": 1}])
def test_a_manifest_that_names_other_files_is_damaged(registry, run, files):
    version = registry.publish(run)
    manifest = _folder(registry, 1) / "manifest.json"
    manifest.write_bytes(manifest_bytes(version._replace(files=files)))
    with pytest.raises(RegistryError, match="version 1 is damaged"):
        Registry(registry.place).open(1)


@pytest.mark.parametrize("alias", ["", "latest", "7", "Champion", "../x", "a/b", "x" * 33, "."])
def test_an_alias_has_a_plain_name(registry, run, alias):
    registry.publish(run)
    with pytest.raises(RegistryError, match="not a name for an alias"):
        registry.promote(1, alias)


def test_a_changed_byte_is_noticed(registry, run):
    registry.publish(run)
    _flip_a_bit(_folder(registry, 1) / "policy.safetensors")
    with pytest.raises(RegistryError, match=r"version 1 is damaged .*checksum differs"):
        registry.open(1)
    with pytest.raises(RegistryError, match="damaged"):
        registry.promote(1)
    _flip_a_bit(_folder(registry, 1) / "manifest.json")
    with pytest.raises(RegistryError, match="version 1 is damaged"):
        Registry(registry.place).version(1)


def test_a_damaged_model_falls_back_to_the_good_one_before_it(registry, run):
    for _ in range(4):
        registry.publish(run)
    for number in (1, 2, 4):
        registry.promote(number)
    _flip_a_bit(_folder(registry, 4) / "policy.safetensors")
    model, problems = registry.open_good("champion")
    assert model.version.number == 2
    assert len(problems) == 1
    assert "version 4 is damaged" in problems[0]
    for number in (1, 2):
        _flip_a_bit(_folder(registry, number) / "manifest.json")
    assert Registry(registry.place).open_good()[0].version.number == 3
    (_folder(registry, 3) / "policy.safetensors").unlink()
    with pytest.raises(RegistryError, match="no version of .* can be read"):
        Registry(registry.place).open_good()


def test_a_version_that_was_not_finished_is_not_seen_and_its_number_is_lost(registry, run):
    registry.publish(run)
    registry.publish(run)
    (_folder(registry, 2) / "manifest.json").unlink()
    _folder(registry, 3).mkdir()
    assert [one.number for one in registry.versions()] == [1]
    assert registry.publish(run).number == 4


def test_a_deleted_version_is_gone_and_its_number_is_not_given_again(registry, run):
    for _ in range(2):
        registry.publish(run)
    registry.promote(1)
    with pytest.raises(RegistryError, match="version 1 is champion"):
        registry.delete(1)
    registry.delete("2")
    assert [one.number for one in registry.versions()] == [1]
    assert [path.name for path in _folder(registry, 2).iterdir()] == ["deleted.json"]
    with pytest.raises(RegistryError, match="no version 2"):
        registry.open(2)
    assert registry.publish(run).number == 3


def test_retention_keeps_what_is_new_or_pointed_at(registry, run):
    for _ in range(5):
        registry.publish(run)
    for number in (1, 3):
        registry.promote(number)
    assert registry.retain(days=30) == []
    assert registry.retain(days=0, dry_run=True) == [4, 2]
    assert len(registry.versions()) == 5
    assert registry.retain(days=0) == [4, 2]
    assert [one.number for one in registry.versions()] == [5, 3, 1]


def test_a_difference_names_the_settings(registry, run, tmp_path):
    registry.publish(run)
    other = make_config("documented", "test", seed=3)
    registry.publish(write_run(tmp_path / "other", other, env_steps=2000))
    difference = registry.diff(1, "latest")
    assert difference["config.seed"] == (0, 3)
    assert difference["lineage.env_steps"] == (1000, 2000)
    assert "config.world" not in difference


def test_nobody_else_can_read_a_version(registry, run):
    registry.publish(run)
    registry.promote(1)
    root = Path(registry.place)
    for path in [root, *root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_link_out_of_the_folder_is_not_followed(registry, run, tmp_path):
    registry.publish(run)
    policy = _folder(registry, 1) / "policy.safetensors"
    secret = tmp_path / "secret"
    policy.rename(secret)
    policy.symlink_to(secret)
    with pytest.raises(RegistryError, match="cannot read"):
        registry.open(1)


def test_processes_that_publish_at_once_get_numbers_of_their_own(registry, run):
    registry.publish(run)
    program = (
        "import sys; from rlcar.registry import Registry\n"
        "registry = Registry(sys.argv[1])\n"
        "arrays, metadata = registry.open(1).arrays, registry.version(1).metadata\n"
        "sys.stdin.readline()\n"
        "for _ in range(20): print(registry.add(arrays, metadata).number)\n"
        "registry.promote('latest', sys.argv[2])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, registry.place, f"by-{index}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for index in range(3)
    ]
    for one in processes:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    numbers = [int(line) for one in processes for line in one.communicate(timeout=60)[0].split()]
    assert [one.returncode for one in processes] == [0, 0, 0]
    assert sorted(numbers) == list(range(2, 62))
    assert [one.number for one in registry.versions()] == list(range(61, 0, -1))
    assert set(registry.aliases()) == {"by-0", "by-1", "by-2"}


def test_whenever_a_publisher_is_killed_what_is_there_is_whole(registry, run):
    registry.publish(run)
    program = (
        "import sys; from rlcar.registry import Registry\n"
        "registry = Registry(sys.argv[1])\n"
        "arrays, metadata = registry.open(1).arrays, registry.version(1).metadata\n"
        "while True:\n"
        "    registry.promote(registry.add(arrays, metadata).number)\n"
        "    print(flush=True)"
    )
    command = [sys.executable, "-c", program, registry.place]
    for delay_s in (0.0, 0.003, 0.01, 0.02):
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            process.stdout.readline()  # the first one is published
            time.sleep(delay_s)
            process.kill()
        again = Registry(registry.place)
        assert again.damaged() == {}
        for version in again.versions():
            again.open(version.number)
        assert again.open("champion").version.number > 1
    assert len(again.versions()) >= 5


def test_threads_that_promote_at_once_all_end_in_the_history(registry, run):
    for _ in range(2):
        registry.publish(run)

    def promote(number: int) -> None:
        for _ in range(10):
            Registry(registry.place).promote(number)

    threads = [threading.Thread(target=promote, args=(number,)) for number in (1, 2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    values = [record.version for record in registry.history("champion")]
    assert values.count(1) >= 10
    assert values.count(2) >= 10
    assert registry.resolve("champion") == values[-1]


def test_reading_needs_neither_jax_nor_ray(registry, run):
    registry.publish(run)
    program = (
        "import sys; from rlcar.registry import Registry\n"
        "from serve.policy.policy import load_policy\n"
        "load_policy(Registry(sys.argv[1]), 'latest')\n"
        "assert not {'jax', 'ray', 'haiku'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, registry.place], check=True, cwd=ROOT)
