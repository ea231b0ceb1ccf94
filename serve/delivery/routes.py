"""`GET /v1/rollout` shows the newest rollout; `POST /v1/rollout/command` changes it."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rlcar.errors import ConfigError, RegistryUnavailableError, UserError
from rlcar.registry import Model
from serve.api.misspelt import with_nearest
from serve.api.schema import RequestError, require_uncompressed
from serve.delivery.counts import RolloutCounts
from serve.delivery.operator import Operator
from serve.delivery.report import described
from serve.delivery.specification import default_specification, parse_specification
from serve.delivery.state import RolloutError, RolloutState

# Runs blocking work on the registry, with a timeout.
Run = Callable[[Callable[[], RolloutState]], Awaitable[RolloutState]]
Route = Callable[[Request], Awaitable[Response]]


class RolloutCommand(msgspec.Struct, forbid_unknown_fields=True):
    """A command; `version` and `specification` belong to `start`, `again` to `retry` too."""

    command: Literal["start", "pause", "resume", "promote", "abort", "retry", "undo"]
    version: str | int | None = None
    specification: dict[str, Any] | None = None
    again: bool = False
    reason: str = ""


def make_status_route(state: Callable[[], tuple[RolloutState | None, RolloutCounts]]) -> Route:
    """Returns the handler that answers with the rollout as this server knows it."""

    async def show(request: Request) -> Response:
        rollout, counts = state()
        return _answer({"rollout": None if rollout is None else described(rollout, counts)})

    return show


def make_command_route(operator: Operator, run: Run, trial: Callable[[Model], None]) -> Route:
    """Returns the handler that runs a command in the name of its sender."""

    async def command(request: Request) -> Response:
        try:
            require_uncompressed(request.headers.raw)
            body = msgspec.json.decode(await request.body(), type=RolloutCommand)
            named = operator.acting_for(str(request.scope["rlcar.identity"].name))
            state = await run(lambda: _run(named, body, trial))
        except msgspec.ValidationError as error:
            said = with_nearest(error, RolloutCommand)
            return _answer({"error": f"the body is invalid: {said}"}, 422)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return _answer({"error": f"the body is invalid: {error}"}, 422)
        except RequestError as error:
            return _answer({"error": str(error)}, error.status)
        except UserError as error:
            return _answer({"error": str(error)}, _status_of(error))
        return _answer({"rollout": described(state)})

    return command


def _run(operator: Operator, body: RolloutCommand, trial: Callable[[Model], None]) -> RolloutState:
    reason = body.reason or f"{body.command} over HTTP"
    if body.command == "start":
        if body.version is None:
            raise ConfigError("`start` needs the `version` to roll out")
        tree = body.specification
        specification = default_specification() if tree is None else parse_specification(tree)
        return operator.start(body.version, specification, trial, is_again=body.again)
    if body.command == "retry":
        return operator.retry(is_again=body.again)
    if body.command in ("promote", "abort", "undo"):
        with_reason: Callable[[str], RolloutState] = getattr(operator, body.command)
        return with_reason(reason)
    without_reason: Callable[[], RolloutState] = getattr(operator, body.command)
    return without_reason()


def _status_of(error: UserError) -> int:
    if isinstance(error, RegistryUnavailableError):
        return 503
    if isinstance(error, ConfigError):
        return 422
    return 409 if isinstance(error, RolloutError) else 404


def _answer(tree: dict[str, Any], status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    body = msgspec.json.encode(tree)
    return Response(body, status, headers, media_type="application/json")
