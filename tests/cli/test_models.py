"""`rlcar models` from publication to deletion, and what it refuses."""

import json
import sys

import pytest

from rlcar import cli
from rlcar.registry import Registry
from tests.support.untrained_run import untrained


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


def test_a_training_that_could_not_publish_does_not_begin(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = ["rlcar", "train", "--local", "--publish", "--registry", "gopher://x/y"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "cannot open the registry gopher://x/y" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
