"""The whole application under uvicorn, tested over HTTP."""

import gzip
import json
import logging
import shutil
import time

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rlcar.registry import Registry
from serve.guard.tokens import TokenStore
from serve.policy.policy import load_policy
from tests.serve.served import damage, publish, serving
from tests.support.waiting import wait_until

SEEN = [0.5, 0.6, 0.9, 0.5, 0.4, 0.2]


@pytest.fixture(scope="module")
def web(models):
    with serving(models) as server, _client(server) as web:
        yield web


def _client(server):
    return httpx.Client(base_url=f"http://127.0.0.1:{server.port}")


def _act(web, **fields):
    return web.post("/v1/act", json={"observation": SEEN} | fields)


def test_an_answer_is_the_policys_own_action(web, models):
    policy = load_policy(Registry(models))
    wanted, _ = policy.act(policy.initial_state(1), np.array([SEEN], np.float32), np.ones(1, bool))
    answer = _act(web).json()
    np.testing.assert_allclose(answer["action"], wanted[0], atol=1e-6)
    assert answer["source"] == "model"
    assert answer["model_version"] == 1
    assert 0.0 <= answer["age_ms"] < 30_000.0  # as late as a busy machine may be
    assert "error" not in answer


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP"])
def test_a_compressed_body_is_an_unsupported_media_type(web, coding):
    body = gzip.compress(json.dumps({"observation": SEEN}).encode())
    headers = {"content-type": "application/json", "content-encoding": coding}
    answer = web.post("/v1/act", content=body, headers=headers)
    assert answer.status_code == 415
    assert answer.json()["error"] == f"content-encoding '{coding}': send the body as it is"
    assert answer.json()["source"] == "fallback"
    plain = {**headers, "content-encoding": "identity"}
    content = json.dumps({"observation": SEEN})
    assert web.post("/v1/act", content=content, headers=plain).status_code == 200


def test_a_session_remembers_and_a_stranger_starts_anew(web, models):
    policy = load_policy(Registry(models))
    state = policy.initial_state(1)
    rng = np.random.default_rng(0)
    for step, seen in enumerate(rng.random((20, 1, 6), np.float32)):
        wanted, state = policy.act(state, seen, np.array([step == 0]))
        answer = _act(web, observation=seen[0].astype(float).tolist(), session="a", step=step)
        np.testing.assert_allclose(answer.json()["action"], wanted[0], atol=1e-6)
        assert answer.json()["session_steps"] == step + 1
    alone = _act(web, observation=seen[0].astype(float).tolist()).json()["action"]
    assert np.abs(np.array(alone) - wanted[0]).max() > 1e-4


def test_is_first_forgets_the_past(web):
    fresh = _act(web, session="b").json()["action"]
    later = _act(web, session="b", observation=[0.1] * 6).json()["action"]
    again = _act(web, session="b", is_first=True).json()["action"]
    assert again == fresh
    assert later != fresh


def test_256_cars_at_once_are_answered_as_each_alone(web):
    rows = np.random.default_rng(1).random((256, 6)).tolist()
    many = web.post("/v1/act", json={"observations": rows}).json()
    assert len(many["actions"]) == 256
    for index in (0, 100, 255):
        alone = _act(web, observation=rows[index]).json()["action"]
        np.testing.assert_allclose(many["actions"][index], alone, atol=1e-5)


def test_a_repeated_request_holds_the_last_action(web):
    first = _act(web, session="c", step=7).json()
    again = _act(web, session="c", step=7, observation=[0.9] * 6).json()
    assert again["source"] == "hold"
    assert again["action"] == first["action"]
    assert again["age_ms"] > first["age_ms"]
    assert again["session_steps"] == first["session_steps"] == 1
    assert _act(web, session="c", step=8).json()["source"] == "model"


def test_a_session_of_other_cars_is_a_conflict(web):
    _act(web, session="d")
    answer = web.post("/v1/act", json={"observations": [SEEN] * 3, "session": "d"})
    assert answer.status_code == 409
    assert "session d drives 1 cars" in answer.json()["error"]


def test_past_the_deadline_the_cars_brake(models):
    with serving(models) as server:
        application = server.config.app.app
        policy = application.alias_follower.current.policy
        slow = type(policy).act

        def act(*arguments):
            time.sleep(0.03)
            return slow(policy, *arguments)

        policy.act = act
        with _client(server) as web:
            late = _act(web, deadline_ms=10).json()
            assert late["source"] == "fallback"
            assert late["action"] == [0.0, -1.0]
            assert _act(web, deadline_ms=1000).json()["source"] == "model"


def test_a_refused_request_still_gets_the_safe_action(web):
    answer = _act(web, observation=[2.0] * 6)
    assert answer.status_code == 422
    assert answer.json()["action"] == [0.0, -1.0]
    assert answer.json()["source"] == "fallback"
    assert "outside 0 to 1" in answer.json()["error"]


def test_models_are_listed_newest_first_and_shown_in_full(tmp_path):
    for seed in range(11):
        publish(tmp_path / "models", seed, alias="champion" if seed == 3 else None)
    with serving(tmp_path / "models") as server, _client(server) as web:
        listed = web.get("/v1/models").json()
        assert listed["serving"] == 4
        assert [one["version"] for one in listed["models"]] == list(range(11, 0, -1))
        for name in ("4", "champion", "serving"):
            shown = web.get(f"/v1/models/{name}").json()
            assert shown["version"] == 4
            assert shown["aliases"] == ["champion"]
            assert shown["config"]["algorithm"] == "dreamer"
        assert web.get("/v1/models/12").status_code == 404
        assert web.get("/v1/models/..%2F..%2Fetc").status_code == 404


def test_metrics_count_answers_actions_and_errors_by_version(web):
    before = _samples(web)
    for _ in range(3):
        _act(web)
    _act(web, observation=[5.0] * 6)
    after = _samples(web)

    def grown(name, **labels):
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0.0)

    assert grown("rlcar_act_answers_total", model_version="1", source="model") == 3
    assert grown("rlcar_act_latency_seconds_count", model_version="1") == 3
    labels = {"model_version": "1", "action": "steering", "le": "+Inf"}
    assert grown("rlcar_act_action_bucket", **labels) == 3
    assert grown("rlcar_http_requests_total", method="POST", route="/v1/act", status="200") == 3
    assert grown("rlcar_http_requests_total", method="POST", route="/v1/act", status="422") == 1


def _samples(web):
    families = text_string_to_metric_families(web.get("/metrics").text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_server_follows_the_alias(tmp_path):
    publish(tmp_path / "models", seed=1)
    with serving(tmp_path / "models") as server, _client(server) as web:
        assert _act(web, session="a").json()["model_version"] == 1
        publish(tmp_path / "models", seed=2)
        wait_until(lambda: _act(web, session="a").json()["model_version"] == 2)
        Registry(tmp_path / "models").rollback()
        wait_until(lambda: _act(web, session="a").json()["model_version"] == 1)


def test_a_damaged_champion_is_never_swapped_in(tmp_path, caplog):
    folder = tmp_path / "models"
    publish(folder, seed=1)
    with serving(folder) as server, _client(server) as web:
        number = publish(folder, seed=2, alias=None)
        # It was promoted while it was sound, and damaged before the server read it.
        sound = shutil.copytree(folder, tmp_path / "sound")
        Registry(sound).promote(number)
        damage(folder, number)
        shutil.copytree(sound / "aliases", folder / "aliases", dirs_exist_ok=True)
        wait_until(lambda: "version 2 is not used" in caplog.text)
        assert _act(web).json()["model_version"] == 1
        assert web.get("/health/ready").status_code == 200
    caplog.clear()
    with serving(folder) as server, _client(server) as web:
        assert _act(web).json()["model_version"] == 1
    assert "version 2 is not used" in caplog.text


def test_without_any_model_cars_brake_and_the_server_is_not_ready(tmp_path):
    with serving(tmp_path / "models") as server, _client(server) as web:
        assert web.get("/health/live").status_code == 200
        assert web.get("/health/ready").status_code == 503
        answer = _act(web)
        assert answer.status_code == 200
        assert answer.json()["action"] == [0.0, -1.0]
        assert answer.json()["model_version"] is None
        publish(tmp_path / "models")
        wait_until(lambda: web.get("/health/ready").status_code == 200)
        assert _act(web).json()["source"] == "model"


@pytest.mark.parametrize("error", [FloatingPointError("not finite"), ValueError("a bug")])
def test_a_policy_that_fails_makes_the_cars_brake_and_is_counted(models, error):
    with serving(models) as server:
        application = server.config.app.app

        def act(*arguments):
            raise error

        application.alias_follower.current.policy.act = act
        with _client(server) as web:
            answer = _act(web)
            assert answer.status_code == 200
            assert answer.json()["source"] == "fallback"
        assert application.metrics.policy_errors == 1


def test_no_secret_stands_in_a_log(models, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    store = TokenStore(tmp_path / "tokens.json")
    secret = store.create("car", ["act"])
    with serving(models, auth=True, tokens=store.path) as server, _client(server) as web:
        good = {"authorization": f"Bearer {secret}"}
        assert web.post("/v1/act", json={"observation": SEEN}, headers=good).status_code == 200
        assert web.get("/metrics", headers=good).status_code == 403
        wrong = {"authorization": f"Bearer {secret}x"}
        assert web.get("/metrics", headers=wrong).status_code == 401
    records = [one for one in caplog.records if not one.name.startswith(("httpx", "httpcore"))]
    assert secret not in "\n".join(one.getMessage() for one in records)
