"""The OpenAPI document: what each route takes and gives, with units and the model's own ranges."""

from typing import Any

from rlcar import __version__
from serve.api.schema import MAX_CARS, ObservationRange
from serve.settings import ServeSettings

_NAME = "^[A-Za-z0-9_.:-]{1,64}$"
_NUMBER_OR_NULL = {"type": ["number", "null"]}


def openapi(allowed: ObservationRange, settings: ServeSettings) -> dict[str, Any]:
    """Returns the document; `allowed` are the ranges of the model that acts."""
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "rlcar policy server",
            "version": __version__,
            "description": "A learned driver. Every answer of /v1/act carries an action.",
        },
        "paths": {
            "/v1/act": {"post": _act(settings)},
            "/v1/models": {"get": _get("Lists the versions, newest first.", "ModelList")},
            "/v1/models/{version}": {"get": _model()},
            "/health/live": {"get": _get("The process runs.", "Health")},
            "/health/ready": {"get": _get("A model acts.", "Health", {"503": "Health"})},
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _get("This document.", None)},
        },
        "components": {
            "schemas": {
                "ActRequest": _act_request(_observation(allowed)),
                "ActAnswer": _act_answer(),
                "Error": _object({"error": {"type": "string"}}),
                "Health": _object(
                    {
                        "status": {"type": "string"},
                        "model_version": {"type": ["integer", "null"]},
                    },
                    required=["status"],
                ),
                "ModelList": _object(
                    {
                        "serving": {"type": ["integer", "null"]},
                        "models": {"type": "array", "items": _ref("ModelSummary")},
                    }
                ),
                "ModelSummary": _object(_SUMMARY),
                "Model": {
                    "type": "object",
                    "properties": {**_SUMMARY, "config": {"type": "object"}},
                    "required": [*_SUMMARY, "config"],
                },
            },
        },
    }
    if settings.auth:
        schemes = {"token": {"type": "http", "scheme": "bearer"}}
        document["components"]["securitySchemes"] = schemes
        document["security"] = [{"token": []}]
        for path in ("/health/live", "/health/ready"):
            document["paths"][path]["get"]["security"] = []
    return document


_SUMMARY: dict[str, Any] = {
    "version": {"type": "integer", "minimum": 1},
    "created": {"type": "string", "description": "ISO 8601, UTC"},
    "aliases": {"type": "array", "items": {"type": "string"}},
    "algorithm": {"type": "string"},
    "description": {"type": "string"},
    "lap_rate": {**_NUMBER_OR_NULL, "minimum": 0, "maximum": 1},
    "lap_time_steps": _NUMBER_OR_NULL,
}


def _observation(allowed: ObservationRange) -> dict[str, Any]:
    """One observation; five rays / 150 px and speed / top speed, in the race."""
    size = len(allowed.low)
    items: dict[str, Any] = {
        "type": "number",
        "minimum": float(allowed.low.min()),
        "maximum": float(allowed.high.max()),
    }
    return {"type": "array", "items": items, "minItems": size, "maxItems": size}


def _act_request(observation: dict[str, Any]) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "session": {"type": "string", "pattern": _NAME, "description": "remembered under it"},
        "step": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
        "deadline_ms": {"type": "number", "minimum": 1, "maximum": 1000},
        "model_version": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
        "is_first": {
            "description": "an episode begins: of all cars, or of each",
            "anyOf": [{"type": "boolean"}, _list({"type": "boolean"})],
        },
    }
    return {
        "oneOf": [
            _object({"observation": observation, **shared}, required=["observation"]),
            _object({"observations": _list(observation), **shared}, required=["observations"]),
        ]
    }


def _act_answer() -> dict[str, Any]:
    number = {"type": "number", "minimum": -1, "maximum": 1}
    action = {
        "type": "array",
        "items": number,
        "minItems": 2,
        "maxItems": 2,
        "description": "steering (1: full lock to the left, headings grow), throttle (-1: brake)",
    }
    properties = {
        "source": {"enum": ["model", "hold", "fallback"]},
        "model_version": {"type": ["integer", "null"]},
        "age_ms": {"type": "number", "minimum": 0},
        "action": action,
        "actions": _list(action),
        "session_steps": {"type": "integer", "minimum": 0},
        "error": {"type": "string"},
    }
    return _object(properties, required=["source", "model_version", "age_ms"])


def _act(settings: ServeSettings) -> dict[str, Any]:
    refused = {
        "400": "no JSON, or no HTTP to speak of",
        "409": "the session drives another number of cars",
        "415": "not application/json, or compressed",
        "422": "a wrong type, size or range; the safe action is in the answer",
    }
    return {
        "summary": "An action for one car, or for each of up to 256.",
        "description": f"Past the deadline ({settings.deadline_ms:g} ms unless the request says) "
        f"the answer is the safe action. A body has at most {settings.act_body_bytes} bytes.",
        "requestBody": {"required": True, "content": _json("ActRequest")},
        "responses": {
            **_guard(),
            "200": _response("the action", "ActAnswer"),
            **{status: _either(text) for status, text in refused.items()},
        },
    }


def _model() -> dict[str, Any]:
    name = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,32}$"}
    text = "a number, an alias, `latest`, or `serving`"
    operation = _get("One version, with its settings and lineage.", "Model", {"404": "Error"})
    parameter = {"name": "version", "in": "path", "required": True, "schema": name}
    return operation | {"parameters": [parameter | {"description": text}]}


def _metrics() -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    ok = {"description": "Prometheus text", "content": content}
    return {"summary": "Metrics of this process.", "responses": {"200": ok, **_guard()}}


def _get(summary: str, schema: str | None, others: dict[str, str] | None = None) -> dict[str, Any]:
    others = others or {}
    answers = {status: _response("no", name) for status, name in others.items()}
    return {
        "summary": summary,
        "responses": {"200": _response("yes", schema), **answers, **_guard()},
    }


def _guard() -> dict[str, Any]:
    """What the guard around all routes may say."""
    texts = {
        "400": "a bad Host header or body",
        "401": "no valid token",
        "403": "the token lacks the scope, or another site's page asked",
        "405": "not that method",
        "408": "the body did not come in time",
        "413": "too large a body",
        "421": "not a host name of this server",
        "429": "too many requests; Retry-After says when",
    }
    return {status: _response(text, "Error") for status, text in texts.items()}


def _response(text: str, schema: str | None) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}} if schema is None else None
    return {"description": text, "content": content or _json(str(schema))}


def _either(text: str) -> dict[str, Any]:
    """Refused by the route, with the safe action, or by the guard before it."""
    schema = {"anyOf": [_ref("ActAnswer"), _ref("Error")]}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(name)}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    """One for each car."""
    return {"type": "array", "items": items, "minItems": 1, "maxItems": MAX_CARS}


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }
