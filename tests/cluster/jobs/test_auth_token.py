"""Where the token is looked for, and that nothing shows it."""

import pytest

from cluster.jobs.auth_token import find_token, token_path
from rlcar.errors import UserError


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".ray").mkdir()
    return {"HOME": str(tmp_path)}


def test_the_variable_comes_before_the_named_file_and_that_before_the_home(home, tmp_path):
    named = tmp_path / "named"
    named.write_text("from-the-named-file\n")
    token_path(home).write_text("from-the-home\n")
    assert find_token(home).value == "from-the-home"
    home["RAY_AUTH_TOKEN_PATH"] = str(named)
    assert find_token(home).value == "from-the-named-file"
    home["RAY_AUTH_TOKEN"] = " from-the-variable "
    assert find_token(home).value == "from-the-variable"


def test_no_token_and_an_empty_file_are_none(home):
    assert find_token(home) is None
    token_path(home).write_text("\n")
    assert find_token(home) is None


@pytest.mark.parametrize(
    ("text", "message"), [(None, "No such file"), (b"\n", "empty"), (b"\xff", "not a text file")]
)
def test_a_named_file_without_a_token_is_an_error_that_names_it(home, tmp_path, text, message):
    named = tmp_path / "named"
    if text is not None:
        named.write_bytes(text)
    with pytest.raises(UserError, match=message) as caught:
        find_token(home | {"RAY_AUTH_TOKEN_PATH": str(named)})
    assert str(named) in str(caught.value)


def test_a_token_says_where_it_is_from_and_not_what_it_is(home):
    token = find_token(home | {"RAY_AUTH_TOKEN": "secret-of-the-cluster"})
    assert "secret" not in f"{token} {token!r}"
    assert token.source == "RAY_AUTH_TOKEN"
