"""`rlcar models` from publication to deletion, and what it refuses."""

import json
import sys

import onnx
import pytest

from rlcar import cli
from rlcar.config import make_config
from rlcar.registry import Registry
from tests.support.untrained_run import untrained, write_run


@pytest.fixture
def models(monkeypatch, capsys, tmp_path):
    """Runs `rlcar models ...` in an empty folder; returns the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlcar", "models", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def run():
    return untrained()


def test_a_model_goes_its_way(models, run, tmp_path):
    assert models("publish", run, "--description", "a [b]first[/b] one")[0] == 0
    code, out, _ = models("publish", run, "--alias", "candidate", "--json")
    assert (code, json.loads(out)["number"], json.loads(out)["aliases"]) == (0, 2, ["candidate"])
    assert models("promote", 1)[2].startswith("champion now: version 1 (documented, classic)")
    models("promote", "candidate")
    code, out, _ = models("list")
    assert code == 0
    assert "a [b]first[/b] one" in out
    assert "candidate, champion" in out
    versions = json.loads(models("list", "--json")[1])
    assert [one["number"] for one in versions] == [2, 1]
    assert models("rollback")[2].startswith("champion again: version 1 ")
    shown = json.loads(models("show", "champion")[1])
    assert shown["metadata"]["lineage"]["run"] == "first"
    assert shown["numbers"] > 5000
    assert json.loads(models("diff", 1, 2, "--json")[1]) == {
        "description": ["a [b]first[/b] one", ""],
        "lineage.parent": [None, 1],
    }
    assert "lineage.parent" in models("diff", 1, 2)[1]
    assert models("export", 1, "one.safetensors")[0] == 0
    assert models("import", "one.safetensors", "--description", "again")[0] == 0
    assert models("backup", "elsewhere")[2] == "backed up: 3 versions\n"
    assert models("retain", "--days", 0, "--dry-run")[2] == "would delete 0 versions: none\n"
    assert models("delete", 3)[0] == 0
    assert models("restore", "elsewhere")[2] == "restored: 0 versions\n"
    assert [one.number for one in Registry(tmp_path / "models").versions()] == [2, 1]


def test_the_registry_may_be_named_by_the_environment(models, run, monkeypatch, tmp_path):
    monkeypatch.setenv("RLCAR_REGISTRY", str(tmp_path / "mine"))
    models("publish", run)
    assert Registry(tmp_path / "mine").resolve("latest") == 1
    assert models("publish", run, "--registry", tmp_path / "yours")[0] == 0
    assert Registry(tmp_path / "yours").resolve("latest") == 1


def test_a_damaged_version_is_named_in_the_list(models, run, tmp_path):
    models("publish", run)
    models("publish", run)
    manifest = tmp_path / "models" / "versions" / "00000001" / "manifest.json"
    manifest.write_text("{}")
    code, out, err = models("list")
    assert code == 0
    assert "2" in out
    assert "version 1 is left out: version 1 is damaged" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "champion"), "there is no alias 'champion' in models, which is empty"),
        (("show", "7"), "there is no version 7 in models"),
        (("publish", "nowhere"), "nowhere is not a run"),
        (("promote", "latest"), "models holds no version yet"),
        (("rollback",), "alias 'champion' has no earlier version"),
        (("delete", "../../x"), "there is no alias '../../x'"),
        (("export", "1", "model.pkl"), "does not end in .safetensors"),
        (("export", "1", "model.onnx"), "does not end in .safetensors"),
        (("export", "1", "model.c", "--format", "onnx"), "model.c does not end in .onnx"),
        (("export", "1", "model.onnx", "--format", "onnx"), "there is no version 1 in models"),
        (
            ("export", "1", "model.tflite", "--format", "tflite"),
            "--format 'tflite': give one of safetensors, onnx, c",
        ),
        (("import", "absent.pkl"), "cannot read absent.pkl"),
        (("import", "absent.safetensors"), "cannot read absent.safetensors"),
        (("retain", "--newest", "0"), "--newest 0: give a number from 1 to 1,000,000"),
        (("list", "--registry", "gopher://x/y"), "cannot open the registry gopher://x/y"),
    ],
)
def test_a_mistake_is_one_sentence(models, arguments, message, tmp_path):
    code, _, err = models(*arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_policy_is_exported_for_other_programs(models, run, tmp_path):
    models("publish", run, "--description", 'for "you" */ and \\ me??/')
    (tmp_path / "one.onnx").write_text("an older export")
    assert models("export", 1, "one.onnx", "--format", "onnx")[2] == "written: one.onnx\n"
    assert models("export", 1, "one.c", "--format", "c")[0] == 0
    version = Registry(tmp_path / "models").version(1)
    about = {entry.key: entry.value for entry in onnx.load("one.onnx").metadata_props}
    assert json.loads(about["observation"]) == version.metadata["observation"]
    assert json.loads(about["action"]) == version.metadata["action"]
    assert about["sha256"] == version.files["policy.safetensors"]["sha256"]
    assert (about["version"], about["algorithm"]) == ("1", "documented")
    assert about["commit"] == version.metadata["lineage"]["commit"]
    comments = [line for line in (tmp_path / "one.c").read_text().splitlines() if "//" in line]
    assert f'// sha256: "{about["sha256"]}"' in comments
    assert f"//     {json.dumps(version.metadata['action'][0])}" in comments
    described = next(line for line in comments if line.startswith("// description: "))
    assert json.loads(described.partition(": ")[2]) == version.metadata["description"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["models", "one.c", "one.onnx"]


@pytest.mark.parametrize("format_", ["onnx", "c"])
def test_a_policy_without_numpy_is_not_exported_for_other_programs(models, tmp_path, format_):
    config = make_config("ppo", "test", environment="CartPole-v1")
    models("publish", write_run(tmp_path / "pole", config))
    code, _, err = models("export", 1, f"one.{format_}", "--format", format_)
    assert code == 2
    assert err.startswith("error: version 1 acts in CartPole-v1 with 2 discrete actions: only")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / f"one.{format_}").exists()


def test_without_the_library_of_a_format_an_export_says_what_to_install(models, run, monkeypatch):
    models("publish", run)
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = models("export", 1, "one.onnx", "--format", "onnx")
    assert code == 2
    assert err == (
        "error: ONNX is not installed: pip install 'rlcar[onnx]', or export with --format c\n"
    )


def test_a_training_that_could_not_publish_does_not_begin(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = ["rlcar", "train", "--local", "--publish", "--registry", "gopher://x/y"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "cannot open the registry gopher://x/y" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
