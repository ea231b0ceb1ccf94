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
    from serve.api.schema import RACE_INTERFACE
    from serve.settings import make_settings

    return openapi(RACE_INTERFACE, make_settings(auth=True))


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
    text += markdown.heading(2, "Bodies of `/v1/act`")
    for title, name in (("Request", "ActRequest"), ("Answer", "ActAnswer")):
        text += markdown.heading(3, title) + "\n"
        text += "".join(
            markdown.entry(markdown.code(field), _sentence(schema["description"]), (_type(schema),))
            for field, schema in fields(name)
        )
    text += markdown.heading(2, "Statuses")
    text += "\nThe guard in front of every route answers with these statuses and "
    text += '`{"error": "…"}`:\n\n'
    common = set(described[0].answers)
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


def fields(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns the fields of a schema of the OpenAPI document, each once."""
    schema = document()["components"]["schemas"][name]
    found: dict[str, dict[str, Any]] = {}
    for alternative in schema.get("oneOf", [schema]):
        found |= alternative["properties"]
    return list(found.items())


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(markdown.code, schema["enum"]))
    if schema["type"] == "array":
        low, high = schema["minItems"], schema["maxItems"]
        size = str(low) if low == high else f"{low} to {high}"
        return f"list of {size}: {_type(schema['items'])}"
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    text = " or ".join(kinds).replace("string", "text")
    if "maximum" in schema:
        return f"{text}, {schema['minimum']:,} to {schema['maximum']:,}"
    return f"{text}, from {schema['minimum']}" if "minimum" in schema else text


def anchor(path: str) -> str:
    """Returns the anchor of a route: that of `/v1/act` is `route-v1-act`."""
    return f"route-{re.sub(r'[^A-Za-z0-9_]+', '-', path).strip('-')}"


def _answer(described: list[Described], status: str) -> str:
    return next(one.answers[status] for one in reversed(described) if status in one.answers)


def _statuses(answers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for status, meaning in sorted(answers.items()):
        yield markdown.code(status), _sentence(meaning)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
