"""The OpenAPI document: requests and answers of each route, with units and the model's ranges."""

from typing import Any

from rlcar import __version__
from serve.api.openapi_drift import drift_paths, drift_schema
from serve.api.openapi_rollouts import rollout_paths, rollout_schemas
from serve.api.outcomes import DRIVERS, LARGEST
from serve.api.schema import MAX_CARS, ModelInterface
from serve.settings import ServeSettings

_Json = dict[str, Any]  # a part of the document

_NAME = "^[A-Za-z0-9_.:-]{1,64}$"
_NUMBER_OR_NULL = {"type": ["number", "null"]}


def openapi(interface: ModelInterface, settings: ServeSettings) -> _Json:
    """Returns the document; `interface` is that of the model that acts."""
    document: _Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "rlcar policy server",
            "version": __version__,
            "description": "Serves a trained policy. Every answer of /v1/act to a request "
            "that passes authentication and limits contains an action.",
        },
        "paths": {
            "/v1/act": {"post": _act(settings)},
            "/v1/models": {"get": _get("List the model versions, newest first.", "ModelList")},
            "/v1/models/{version}": {"get": _model()},
            **drift_paths(_guard(), _ref("Drift"), _ref("Error")),
            **rollout_paths(_guard()),
            "/health/live": {"get": _get("Check that the process runs.", "Health")},
            "/health/ready": {"get": _get("Check that a model acts.", "Health", "not ready")},
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _get("Get this document.", None)},
        },
        "components": {
            "schemas": {
                "ActRequest": _act_request(_observation(interface), _action(interface)),
                "ActAnswer": _act_answer(_action(interface)),
                "Drift": drift_schema(),
                **rollout_schemas(),
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


_SUMMARY: _Json = {
    "version": {"type": "integer", "minimum": 1},
    "created": {"type": "string", "description": "ISO 8601, UTC"},
    "aliases": {"type": "array", "items": {"type": "string"}},
    "algorithm": {"type": "string"},
    "description": {"type": "string"},
    "lap_rate": {**_NUMBER_OR_NULL, "minimum": 0, "maximum": 1},
    "lap_time_steps": _NUMBER_OR_NULL,
}


def _observation(interface: ModelInterface) -> _Json:
    """Describes one observation; in the race: five rays / 150 px and speed / top speed."""
    size = len(interface.low)
    items: _Json = {
        "type": "number",
        "minimum": float(interface.low.min()),
        "maximum": float(interface.high.max()),
    }
    return {"type": "array", "items": items, "minItems": size, "maxItems": size}


def _action(interface: ModelInterface) -> _Json:
    """Describes one action."""
    size = interface.action_size
    items: _Json = {"type": "number", "minimum": -1, "maximum": 1}
    return {"type": "array", "items": items, "minItems": size, "maxItems": size}


def _act_request(observation: _Json, action: _Json) -> _Json:
    shared: _Json = {
        "session": {
            "type": "string",
            "pattern": _NAME,
            "description": "name of a session; the server remembers its cars' observations",
        },
        "step": {
            "type": "integer",
            "minimum": 0,
            "maximum": 2**32 - 1,
            "description": "number of the session's observation; a step that was counted already "
            "gets the last action again",
        },
        "deadline_ms": {
            "type": "number",
            "minimum": 1,
            "maximum": 1000,
            "description": "time to answer in ms; after it the answer is the safe action",
        },
        "model_version": {
            "type": "integer",
            "minimum": 0,
            "maximum": 2**31 - 1,
            "description": "model version of the last answer that the client received",
        },
        "is_first": {
            "description": "whether an episode begins: for all cars, or for each",
            "anyOf": [{"type": "boolean"}, _list({"type": "boolean"})],
        },
    }
    shared |= _outcome(action)
    one = {
        **observation,
        "description": "observation of one car; in the race five ray distances / 150 px and the "
        "speed / top speed",
    }
    several = {**_list(observation), "description": "observations of several cars"}
    return {
        "oneOf": [
            _object({"observation": one, **shared}, required=["observation"]),
            _object({"observations": several, **shared}, required=["observations"]),
        ]
    }


def _outcome(action: _Json) -> _Json:
    """Describes what a request reports of the last actions, for recordings."""
    number = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
    executed = _object(
        {
            "action": action,
            "source": {"enum": list(DRIVERS)},
            "logp": {"anyOf": [number, {"type": "null"}]},
        },
        required=["action", "source"],
    )
    return {
        "reward": {
            "description": "reward for the last actions: for all cars, or for each",
            "anyOf": [number, _list(number)],
        },
        "terminated": {
            "description": "whether this observation is the last one after a crash or a finish: "
            "for all cars, or for each",
            "anyOf": [{"type": "boolean"}, _list({"type": "boolean"})],
        },
        "truncated": {
            "description": "whether this observation is the last one because of a limit: for all "
            "cars, or for each",
            "anyOf": [{"type": "boolean"}, _list({"type": "boolean"})],
        },
        "executed": {
            "description": "what a car did in place of the last answer, and who chose it; logp is "
            "the log-probability density of the action. For one car, or for each; null for a car "
            "that did what the answer says",
            "anyOf": [executed, _list({"anyOf": [executed, {"type": "null"}]})],
        },
    }


def _act_answer(action: _Json) -> _Json:
    action = {
        **action,
        "description": "the numbers that the version's `action` lists; in the race steering (1: "
        "full lock to the left, which increases the heading) and throttle (1: full throttle, -1: "
        "full brake)",
    }
    properties = {
        "source": {
            "enum": ["model", "hold", "fallback"],
            "description": "model: the policy's action; hold: the session's last action again; "
            "fallback: the safe action of the version; in the race full brake and straight ahead",
        },
        "model_version": {
            "type": ["integer", "null"],
            "description": "number of the model version that acted; null if there is none",
        },
        "age_ms": {
            "type": "number",
            "minimum": 0,
            "description": "time in ms since the observation behind the action arrived",
        },
        "action": action,
        "actions": {**_list(action), "description": "one action for each of several cars"},
        "session_steps": {
            "type": "integer",
            "minimum": 0,
            "description": "observations in the session's memory",
        },
        "error": {"type": "string", "description": "why the answer is not the policy's action"},
    }
    return _object(properties, required=["source", "model_version", "age_ms"])


def _act(settings: ServeSettings) -> _Json:
    refused = {
        "400": "invalid JSON or invalid HTTP",
        "409": "the session has another number of cars",
        "415": "the content type is not application/json, or the body is compressed",
        "422": "a wrong type, size or range; the answer contains the safe action",
    }
    return {
        "summary": "Get an action for one car, or for each of up to 256.",
        "description": f"After the deadline ({settings.deadline_ms:g} ms unless the request sets "
        "another) the answer is the safe action. A body has at most "
        f"{settings.act_body_bytes} bytes.",
        "requestBody": {"required": True, "content": _json("ActRequest")},
        "responses": {
            **_guard(),
            "200": _response("the action", "ActAnswer"),
            **{status: _either(text) for status, text in refused.items()},
        },
    }


def _model() -> _Json:
    name = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,32}$"}
    text = "a version number, an alias, `latest`, or `serving`: the version that acts"
    summary = "Get one model version with its settings and lineage."
    operation = _get(summary, "Model")
    operation["responses"]["404"] = _response("there is no such version", "Error")
    parameter = {"name": "version", "in": "path", "required": True, "schema": name}
    return operation | {"parameters": [parameter | {"description": text}]}


def _metrics() -> _Json:
    content = {"text/plain": {"schema": {"type": "string"}}}
    ok = {"description": "metrics in Prometheus's text format", "content": content}
    summary = "Get the metrics of this process."
    return {"summary": summary, "responses": {"200": ok, **_guard()}}


def _get(summary: str, schema: str | None, if_unavailable: str | None = None) -> _Json:
    """Describes a GET operation; `if_unavailable` is the meaning of a 503 with the same schema."""
    responses = {"200": _response("success", schema), **_guard()}
    if if_unavailable is not None:
        responses["503"] = _response(if_unavailable, schema)
    return {"summary": summary, "responses": responses}


def _guard() -> _Json:
    """Describes the refusals of the guard around all routes."""
    texts = {
        "400": "an invalid Host header or body",
        "401": "no valid token",
        "403": "the token lacks the scope, or the request comes from a page of another site",
        "405": "the method is not allowed",
        "408": "the body did not arrive in time",
        "413": "the body is too large",
        "421": "the host name is not one of this server",
        "429": "too many requests; Retry-After gives the time to wait in seconds",
    }
    return {status: _response(text, "Error") for status, text in texts.items()}


def _response(text: str, schema: str | None) -> _Json:
    content = {"application/json": {"schema": {"type": "object"}}} if schema is None else None
    return {"description": text, "content": content or _json(str(schema))}


def _either(text: str) -> _Json:
    """Describes a refusal by the route, with the safe action, or by the guard before it."""
    schema = {"anyOf": [_ref("ActAnswer"), _ref("Error")]}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _json(name: str) -> _Json:
    return {"application/json": {"schema": _ref(name)}}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: _Json) -> _Json:
    """Describes a list with one entry per car."""
    return {"type": "array", "items": items, "minItems": 1, "maxItems": MAX_CARS}


def _object(properties: _Json, required: list[str] | None = None) -> _Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }
