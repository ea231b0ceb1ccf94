import base64
import json
import math
import stat

import pytest

from rlcar.errors import UserError
from serve.guard.tokens import TokenStore


@pytest.fixture
def store(tmp_path, clock):
    return TokenStore(tmp_path / "tokens.json", clock)


def test_a_secret_is_returned_once_and_never_stored(store):
    secret = store.create("car-7", ["act"])
    text = store.path.read_text()
    assert secret not in text
    random_part = secret.removeprefix("rlcar_car-7_")
    assert len(random_part) == 43  # base64 of 256 bits, in which "_" is a digit too
    assert random_part not in text
    assert store.check(secret).name == "car-7"


def test_only_the_owner_can_read_the_file(store):
    store.create("car-7", ["act"])
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_an_unknown_secret_is_nobody(store):
    store.create("car-7", ["act"])
    assert store.check("rlcar_car-7_guess") is None
    assert store.check("") is None


def test_scopes_are_exact_but_admin_may_do_everything(store):
    car = store.check(store.create("car", ["act", "read"]))
    admin = store.check(store.create("boss", ["admin"]))
    assert car.allows("act")
    assert not car.allows("drive")
    assert admin.allows("drive")


def test_an_unknown_scope_or_name_is_refused_in_a_sentence(store):
    with pytest.raises(UserError, match="choose from read, act, drive, admin"):
        store.create("car", ["fly"])
    with pytest.raises(UserError, match="letters, digits and hyphens"):
        store.create("a.b", ["act"])
    store.create("car", ["act"])
    with pytest.raises(UserError, match="already"):
        store.create("car", ["act"])


def test_a_token_ends_when_it_says(store, clock):
    secret = store.create("car", ["act"], expires_s=60.0)
    assert store.check(secret)
    clock.now_s += 61.0
    assert store.check(secret) is None


@pytest.mark.parametrize("silly", [math.nan, math.inf, -math.inf, -1.0, 1e12 * 86_400.0])
def test_a_time_that_is_none_is_refused_and_the_file_left_alone(store, silly):
    secret = store.create("car", ["act"])
    before = store.path.read_bytes()
    with pytest.raises(UserError, match="cannot expire after"):
        store.create("other", ["act"], expires_s=silly)
    with pytest.raises(UserError, match="cannot stay valid for"):
        store.rotate("car", overlap_s=silly)
    assert store.path.read_bytes() == before
    assert store.check(secret)


def test_a_token_that_ends_at_once_is_refused_but_an_old_secret_may_end_at_once(store):
    with pytest.raises(UserError, match="cannot expire after 0 days"):
        store.create("car", ["act"], expires_s=0.0)
    old = store.create("car", ["act"])
    new = store.rotate("car", overlap_s=0.0)
    assert store.check(old) is None
    assert store.check(new)


def test_a_file_that_cannot_be_read_for_a_while_lets_nobody_out(store, caplog):
    secret = store.create("car", ["act"])
    assert store.check(secret)
    kept = store.path.rename(store.path.with_suffix(".kept"))
    store.path.mkdir()  # the superuser can read any file, but not a folder as a file
    store._looked_s = -1.0
    assert store.check(secret)
    assert "the tokens read before stay valid" in caplog.text
    store.path.rmdir()
    kept.rename(store.path)
    store._looked_s = -1.0
    assert store.check(secret)


def test_a_rotated_token_has_two_secrets_for_a_while(store, clock):
    old = store.create("car", ["act"])
    new = store.rotate("car", overlap_s=30.0)
    assert store.check(old).name == store.check(new).name == "car"
    clock.now_s += 31.0
    assert store.check(old) is None
    assert store.check(new).name == "car"


def test_rotating_does_not_prolong_a_token(store, clock):
    store.create("car", ["act"], expires_s=100.0)
    new = store.rotate("car", overlap_s=30.0)
    clock.now_s += 101.0
    assert store.check(new) is None


def test_a_revoked_token_is_nobody_at_once(store):
    secret = store.create("car", ["act"])
    cookie = store.make_cookie(store.check(secret), 60.0)
    store.revoke("car")
    assert store.check(secret) is None
    assert store.check_cookie(cookie) is None
    with pytest.raises(UserError, match="no token 'car'"):
        store.revoke("car")


def test_another_process_sees_a_change(store, clock):
    other = TokenStore(store.path, clock)
    secret = store.create("car", ["act"])
    assert other.check(secret).name == "car"


def test_a_cookie_is_signed_and_ends(store, clock):
    token = store.check(store.create("person", ["drive"]))
    cookie = store.make_cookie(token, 60.0)
    assert store.check_cookie(cookie).name == "person"
    forged = cookie.replace("person", "admin1")
    assert store.check_cookie(forged) is None
    assert store.check_cookie("") is None
    assert store.check_cookie("a.b.c.d") is None
    clock.now_s += 61.0
    assert store.check_cookie(cookie) is None


def test_another_file_signs_otherwise(store, tmp_path):
    token = store.check(store.create("person", ["drive"]))
    other = TokenStore(tmp_path / "others.json")
    other.create("person", ["drive"])
    assert other.check_cookie(store.make_cookie(token, 60.0)) is None


def test_the_key_of_cookies_is_random(store, tmp_path):
    store.create("a", ["read"])
    other = TokenStore(tmp_path / "others.json")
    other.create("a", ["read"])
    keys = [json.loads(one.path.read_text())["signing_key"] for one in (store, other)]
    assert keys[0] != keys[1]
    assert len(base64.urlsafe_b64decode(keys[0])) == 32


def test_a_damaged_file_lets_nobody_new_in_and_nobody_out(store, clock, caplog):
    secret = store.create("car", ["act"])
    reader = TokenStore(store.path, clock)
    assert reader.check(secret)
    store.path.write_text("{")
    reader._looked_s = -1.0
    assert reader.check(secret)
    assert "is not a valid file of tokens" in caplog.text
    with pytest.raises(UserError, match="restore it"):
        TokenStore(store.path, clock).check(secret)
