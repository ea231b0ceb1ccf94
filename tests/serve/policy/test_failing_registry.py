"""While the registry fails or hangs, the last good policy acts; afterwards the server recovers."""

import re
import shutil
import time

import httpx

from rlcar.registry import Registry
from tests.registry.hanging_store import ENVIRONMENT, hanging_store
from tests.registry.irregular import KINDS, replace_with
from tests.serve.served import publish, serving
from tests.support.waiting import wait_until

BUSY_S = 3.0  # on a busy machine; a read of a hanging registry takes longer


def _metric(web: httpx.Client, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", web.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


def _act(web: httpx.Client, **more: object) -> dict:
    return web.post("/v1/act", json={"observation": [0.5] * 6, **more}).json()


def test_a_champion_that_is_no_regular_file_is_not_followed_and_the_next_one_is(tmp_path):
    folder = tmp_path / "models"
    good = publish(folder)
    with serving(folder, poll_s=0.05) as server, httpx.Client() as web:
        web.base_url = f"http://127.0.0.1:{server.port}"
        for number, kind in enumerate(kind for kind in KINDS if kind != "unreadable"):
            failures = _metric(web, "rlcar_model_load_failures_total")
            bad = publish(folder, seed=1, alias=None)
            # Promotion refuses a damaged version, so the alias is moved in a copy.
            copy = shutil.copytree(folder, tmp_path / f"copy-{number}")
            Registry(copy).promote(bad)
            version = folder / "versions" / f"{bad:08d}"
            replace_with(kind, version / "policy.safetensors")
            shutil.copytree(copy / "aliases", folder / "aliases", dirs_exist_ok=True)
            assert Registry(folder).resolve("champion") == bad
            wait_until(lambda: _metric(web, "rlcar_model_load_failures_total") > failures)  # noqa: B023
            assert (_act(web)["source"], _act(web)["model_version"]) == ("model", good), kind
            good = publish(folder, seed=2)
            wait_until(lambda: _act(web)["model_version"] == good)  # noqa: B023
            shutil.rmtree(version)  # cannot be copied


def test_an_alias_that_cannot_be_listed_is_followed_again_later(tmp_path):
    folder = tmp_path / "models"
    publish(folder)
    aliases = folder / "aliases"
    with serving(folder, poll_s=0.05) as server, httpx.Client() as web:
        web.base_url = f"http://127.0.0.1:{server.port}"
        aliases.rename(folder / "away")
        aliases.mkdir()
        wait_until(lambda: _metric(web, "rlcar_registry_errors_total") >= 1)
        assert _metric(web, "rlcar_registry_readable") == 0
        assert (_act(web)["source"], _act(web)["model_version"]) == ("model", 1)
        aliases.rmdir()
        (folder / "away").rename(aliases)
        publish(folder, seed=1)
        wait_until(lambda: _act(web)["model_version"] == 2)
        assert _metric(web, "rlcar_registry_readable") == 1


def test_an_alias_that_has_never_been_set_is_no_failure_of_the_registry(tmp_path, caplog):
    folder = tmp_path / "models"
    publish(folder, alias=None)
    with serving(folder, poll_s=0.05) as server, httpx.Client() as web:
        web.base_url = f"http://127.0.0.1:{server.port}"
        wait_until(lambda: "there is no alias 'champion'" in caplog.text)
        assert "the newest version acts until the alias is set" in caplog.text
        assert _metric(web, "rlcar_registry_readable") == 1
        assert _metric(web, "rlcar_registry_errors_total") == 0
        publish(folder, seed=1)
        wait_until(lambda: _act(web)["model_version"] == 2)


def test_a_registry_that_hangs_costs_no_answer_and_is_followed_again(monkeypatch, caplog):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with hanging_store() as store:
        publish(store.url)
        with serving(store.url, poll_s=0.05) as server, httpx.Client(timeout=30.0) as web:
            web.base_url = f"http://127.0.0.1:{server.port}"
            publish(store.url, seed=1, alias=None)
            store.hang()
            for step in range(20):
                began_s = time.monotonic()
                answer = _act(web, session="a", model_version=2, step=step)
                assert time.monotonic() - began_s < BUSY_S
                assert (answer["source"], answer["model_version"]) == ("model", 1)
            for path in ("/v1/models", "/v1/models/1"):
                listed = web.get(path)
                assert listed.status_code == 503
                assert len(listed.json()["error"].splitlines()) == 1
            wait_until(lambda: _metric(web, "rlcar_registry_readable") == 0)
            assert web.get("/health/ready").status_code == 200
            store.go_on()
            Registry(store.url).promote(2)
            wait_until(lambda: _act(web)["model_version"] == 2)
            assert web.get("/v1/models").status_code == 200
    said = [record for record in caplog.records if "cannot be read" in record.message]
    assert len(said) == 1
