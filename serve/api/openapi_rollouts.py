"""The part of the OpenAPI document about rollouts: reports of laps, the status, and commands."""

from typing import Any

from serve.api.laps import MAX_LAPS
from serve.api.outcomes import MAX_CARS
from serve.api.schema import LARGEST_REWARD

_Json = dict[str, Any]  # a part of the document

_COMMANDS = ("pause", "resume", "promote", "abort", "retry", "undo")
_FRACTION: _Json = {"type": "number", "minimum": 0, "maximum": 100}
_COUNT: _Json = {"type": "integer", "minimum": 0}


def rollout_paths(guard: _Json) -> _Json:
    """Returns the routes; `guard` are the refusals of the guard around all of them."""
    return {
        "/v1/outcome": {"post": _report(guard)},
        "/v1/rollout": {"get": _status(guard)},
        "/v1/rollout/command": {"post": _command(guard)},
    }


def rollout_schemas() -> _Json:
    """Returns the schemas that the routes refer to."""
    return {
        "Lap": _lap(),
        "LapList": _object(
            {
                "laps": {
                    "type": "array",
                    "items": _ref("Lap"),
                    "minItems": 1,
                    "maxItems": MAX_LAPS,
                }
            },
            ["laps"],
        ),
        "LapResult": _object(
            {
                "status": {
                    "enum": ["counted", "ignored", "refused"],
                    "description": "counted: a KPI of the rollout; ignored: sound, but it says "
                    "nothing about one of the two versions; refused: the session or the car is "
                    "not known",
                },
                "reason": {"type": "string", "description": "why the lap is not counted"},
            },
            ["status"],
        ),
        "LapResults": _object(
            {
                "laps": {
                    "type": "array",
                    "items": _ref("LapResult"),
                    "description": "one result for each lap of the request, in its order",
                }
            },
            ["laps"],
        ),
        "RolloutAnswer": _object(
            {"rollout": {"anyOf": [_ref("Rollout"), {"type": "null"}]}}, ["rollout"]
        ),
        "Rollout": {"type": "object", "properties": _ROLLOUT, "required": _ALWAYS},
        "RolloutCommand": {"oneOf": [_start_command(), _other_command()]},
    }


_ROLLOUT: _Json = {
    "rollout": {"type": "string", "description": "name of the rollout"},
    "stable": {"type": "integer", "minimum": 1},
    "candidate": {"type": "integer", "minimum": 1},
    "phase": {"enum": ["Progressing", "Paused", "Healthy", "Degraded", "Inconclusive"]},
    "started_s": {"type": "number", "description": "Unix time in s"},
    "step": {**_COUNT, "description": "index of the present step"},
    "steps": _COUNT,
    "step_text": {"type": "string"},
    "step_began_s": {"type": "number", "description": "Unix time in s"},
    "weight": {**_FRACTION, "description": "percentage of the sessions that the candidate drives"},
    "shadow_weight": {**_FRACTION, "description": "percentage of the sessions that are shadowed"},
    "is_promoted": {"type": "boolean"},
    "message": {"type": "string"},
    "tallies": {"type": "object", "description": "measurements of each metric of the analysis"},
    "counts": {
        "type": "object",
        "description": "what all servers have counted about both versions and the shadow",
    },
    "outcomes": {
        **_COUNT,
        "description": "laps that were counted: the larger of those with a reward and a success",
    },
}
_ALWAYS = [name for name in _ROLLOUT if name not in ("counts", "outcomes")]


def _lap() -> _Json:
    reward = {"type": "number", "minimum": -LARGEST_REWARD, "maximum": LARGEST_REWARD}
    success = {"type": "boolean"}
    car = {"type": "integer", "minimum": 0, "maximum": MAX_CARS - 1}
    properties: _Json = {
        "session": {"type": "string", "minLength": 1, "maxLength": 64},
        "reward": _or_null(reward, "total reward of the lap or episode"),
        "success": _or_null(success, "whether the lap was a success"),
        "human": {
            "type": "boolean",
            "description": "whether a person drove; such a lap is not counted",
        },
        "car": _or_null(
            car,
            "index of the car in a session of several; without it the lap is one of all cars",
        ),
    }
    kpis = [
        {"required": [name], "properties": {name: schema}}
        for name, schema in (("reward", reward), ("success", success))
    ]
    return {**_object(properties, ["session"]), "anyOf": kpis}


def _start_command() -> _Json:
    properties: _Json = {
        "command": {"enum": ["start"]},
        "version": {
            "anyOf": [{"type": "string"}, {"type": "integer"}],
            "description": "the number of the version to roll out, an alias, or `latest`",
        },
        "specification": _or_null(
            {"type": "object"},
            "the rollout's file as a tree; without it, 10 % and then 50 % of the sessions for ten "
            "minutes each",
        ),
        "again": {
            "type": "boolean",
            "description": "whether to accept a version that was rolled back before",
        },
        "reason": {"type": "string"},
    }
    return _object(properties, ["command", "version"])


def _other_command() -> _Json:
    properties: _Json = {
        "command": {"enum": list(_COMMANDS)},
        "again": {
            "type": "boolean",
            "description": "for `retry`: whether to accept a version that was rolled back before",
        },
        "reason": {"type": "string", "description": "stands in the journal"},
    }
    return _object(properties, ["command"])


def _report(guard: _Json) -> _Json:
    body = {"anyOf": [_ref("Lap"), _ref("LapList")]}
    answer = {"anyOf": [_ref("LapResult"), _ref("LapResults")]}
    return {
        "summary": "Report one lap, or up to 256 of several sessions, for the rollout.",
        "description": "One lap is answered by its result, and a list by one result for each lap. "
        "A request with an invalid lap is refused as a whole, and the error names its index. "
        "Behind several replicas, a request reaches the sessions of one of them.",
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {
            **guard,
            "200": {"description": "what became of each lap", "content": _json(answer)},
            "400": _error("invalid JSON or invalid HTTP"),
            "404": _error("for one lap: there is no such session or car, or it has expired"),
            "415": _error("the body is compressed"),
            "422": _error("a wrong type, size or range; no lap was counted"),
        },
    }


def _status(guard: _Json) -> _Json:
    return {
        "summary": "Get the newest rollout, as this server knows it.",
        "responses": {
            **guard,
            "200": {
                "description": "the rollout; null if there was none yet",
                "content": _json(_ref("RolloutAnswer")),
            },
        },
    }


def _command(guard: _Json) -> _Json:
    return {
        "summary": "Start, hold or end a rollout.",
        "requestBody": {"required": True, "content": _json(_ref("RolloutCommand"))},
        "responses": {
            **guard,
            "200": {
                "description": "the rollout after the command",
                "content": _json(_ref("RolloutAnswer")),
            },
            "404": _error("there is no such version"),
            "409": _error("the rollout's state does not allow the command"),
            "415": _error("the body is compressed"),
            "422": _error("an invalid body, or an invalid specification"),
            "503": _error("the registry does not answer"),
        },
    }


def _or_null(schema: _Json, text: str) -> _Json:
    return {"anyOf": [schema, {"type": "null"}], "description": text}


def _error(text: str) -> _Json:
    return {"description": text, "content": _json(_ref("Error"))}


def _json(schema: _Json) -> _Json:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: _Json, required: list[str]) -> _Json:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
