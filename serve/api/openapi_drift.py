"""The part of the OpenAPI document about drift."""

from typing import Any

_Json = dict[str, Any]


def drift_paths(guard: _Json, ref: _Json, error: _Json) -> _Json:
    """Describes both routes; `guard` are the refusals of every route, `ref` is the answer's schema.

    `error` describes the body of a refusal.
    """

    def answer(text: str, schema: _Json, kind: str = "application/json") -> _Json:
        return {"description": text, "content": {kind: {"schema": schema}}}

    version = {
        "name": "version",
        "in": "query",
        "required": False,
        "description": "number of a version; without it, the one that acted last",
        "schema": {"type": "integer", "minimum": 0, "maximum": 99_999_999},
    }
    return {
        "/v1/drift": {
            "get": {
                "summary": "Compare the driving of the served versions with their evaluation.",
                "responses": {"200": answer("the versions that acted last", ref), **guard},
            }
        },
        "/v1/drift.svg": {
            "get": {
                "summary": "Get a picture of the newest window of laps beside the evaluation.",
                "parameters": [version],
                "responses": {
                    "200": answer("the picture", {"type": "string"}, "image/svg+xml"),
                    "404": answer("the version has not acted or is not watched", error),
                    "422": answer("the version is no number", error),
                    **guard,
                },
            }
        },
    }


def drift_schema() -> _Json:
    """Describes the answer of `/v1/drift`."""
    number, count = {"type": "number"}, {"type": "integer", "minimum": 0}
    text_or_null, flag = {"type": ["string", "null"]}, {"type": "boolean"}
    kpi = {
        "description": "mean over the newest reported laps; null for too few laps",
        "anyOf": [
            _object(
                {
                    "laps": count,
                    "mean": number,
                    "expected": number,
                    "shortfall": {**number, "description": "as a share of what is expected"},
                    "is_low": flag,
                }
            ),
            {"type": "null"},
        ],
    }
    test = _object(
        {
            "test": {"enum": ["psi", "ks", "energy"]},
            "value": number,
            "threshold": number,
            "channel": text_or_null,
            "drift": flag,
        }
    )
    version = _object(
        {
            "model_version": {"type": "integer", "minimum": 1},
            "watched": flag,
            "problem": {**text_or_null, "description": "why the version is not watched"},
            "drift": flag,
            "silent": {**flag, "description": "it has driven no lap for ten minutes"},
            "since_unix_s": {"type": ["number", "null"]},
            "alarms": count,
            "laps": count,
            "window_laps": count,
            "reference_laps": count,
            "tests": {"type": "array", "items": test},
            "shifts": {
                "type": "object",
                "additionalProperties": number,
                "description": "shift of each channel's mean, in deviations between laps",
            },
            "reward": kpi,
            "success": kpi,
        }
    )
    return _object({"versions": {"type": "array", "items": version}})


def _object(properties: _Json) -> _Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
