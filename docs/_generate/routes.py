"""Reference of the HTTP routes: who may ask (the guard's table), and what is answered (OpenAPI)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from docs._generate import markdown


class Described(NamedTuple):
    """One route."""

    path: str
    method: str
    scope: str  # empty: everybody may ask
    meaning: str
    answers: Mapping[str, str]  # status -> when; only of what the OpenAPI document describes


def routes() -> Iterator[Described]:
    """Yields every route in the order of the guard's table."""
    from serve.guard.access import ROUTES

    paths = document()["paths"]
    for path, access in ROUTES.items():
        operations = paths.get(path, {})
        if access.is_socket:
            method = "WebSocket"
        elif operations:
            method = ", ".join(name.upper() for name in operations)
        else:
            method = "POST" if access.is_changing else "GET"
        if access.is_legacy_get:
            method += ", GET (deprecated)"
        answers = {
            status: answer["description"]
            for operation in operations.values()
            for status, answer in operation["responses"].items()
        }
        yield Described(path, method, access.scope or "", access.meaning, answers)


def document() -> dict[str, Any]:
    """Returns the OpenAPI document of a server of the race that asks for tokens."""
    from serve.api.openapi import openapi
    from serve.api.schema import RACE_RANGE
    from serve.settings import make_settings

    return openapi(RACE_RANGE, make_settings(auth=True))


def render() -> str:
    """Returns all routes in Markdown, then the statuses of those that OpenAPI describes."""
    described = list(routes())
    text = "".join(
        markdown.entry(
            markdown.anchored(one.path, anchor(one.path)),
            one.meaning,
            (one.method, f"scope `{one.scope}`" if one.scope else "open to everybody"),
        )
        for one in described
    )
    text += markdown.heading(2, "Statuses")
    text += "\nThe guard in front of every route answers with these statuses and "
    text += '`{"error": "…"}`:\n\n'
    common = described[0].answers.keys()
    for one in described:
        common = common & one.answers.keys() if one.answers else common
    shared = {status: _answer(described, status) for status in sorted(common - {"200"})}
    text += markdown.table(("Status", "Meaning"), _statuses(shared), "statuses")
    for one in described:
        own = {
            status: meaning
            for status, meaning in one.answers.items()
            if shared.get(status) != meaning
        }
        if set(own) - {"200"}:
            text += markdown.heading(3, markdown.code(one.path)) + "\n"
            text += markdown.table(("Status", "Meaning"), _statuses(own), "statuses")
    return text


def anchor(path: str) -> str:
    """Returns the anchor of a route: that of `/v1/act` is `route-v1-act`."""
    return f"route-{re.sub(r'[^A-Za-z0-9_]+', '-', path).strip('-')}"


def _answer(described: list[Described], status: str) -> str:
    return next(one.answers[status] for one in reversed(described) if status in one.answers)


def _statuses(answers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for status, meaning in sorted(answers.items()):
        sentence = meaning[:1].upper() + meaning[1:].rstrip(".") + "."
        yield markdown.code(status), sentence
