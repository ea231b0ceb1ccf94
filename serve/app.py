"""The ASGI application: the policy's routes behind the guard, for uvicorn and for Ray Serve."""

import asyncio
import contextlib
import gc
import logging
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from rlcar.errors import RegistryError, RegistryUnavailableError
from rlcar.registry import Registry, Version
from serve.api.laps import LapResults, decode_laps
from serve.api.openapi import openapi
from serve.api.schema import (
    RequestError,
    check_request,
    decode_act,
    encode,
    require_uncompressed,
)
from serve.delivery.counts import RolloutCounts
from serve.delivery.integrations import read_integrations
from serve.delivery.operator import Operator
from serve.delivery.routes import make_command_route, make_status_route
from serve.delivery.state import RolloutState
from serve.drive_socket import DriveSocket
from serve.guard.security import Security
from serve.observing.metrics import ServerMetrics
from serve.policy.action_service import ActionService
from serve.policy.alias_follower import AliasFollower
from serve.policy.drift_routes import drift_routes
from serve.policy.drift_watch import DriftWatch
from serve.policy.policy import try_model
from serve.policy.registry_calls import (
    CHANGE_TIMEOUT_S,
    READ_TIMEOUT_S,
    RegistryCalls,
    run_in_daemon_thread,
)
from serve.policy.rollout_follower import RolloutFollower
from serve.recording.recorder import Recorder
from serve.settings import ServeSettings

if TYPE_CHECKING:
    from ray.serve import Application as RayApplication

# A service that runs as long as the application: `async with background(): …`.
Background = Callable[[], contextlib.AbstractAsyncContextManager[object]]

_LOGGER = logging.getLogger(__name__)
_NO_STORE = (b"cache-control", b"no-store")
# Threads load models and act for large batches. With Python's default of 5 ms the event loop would
# wait that long for each of them.
_SWITCH_INTERVAL_S = 0.0005
_FIRST_TURN_S = 5.0  # a start may wait so long for the rollout
_LAPS_AT_ONCE = 32
_JSON = (b"content-type", b"application/json")


class Application:
    """An ASGI application; for speed, `/v1/act` does not go through Starlette."""

    def __init__(
        self,
        settings: ServeSettings,
        routes: Sequence[BaseRoute] = (),
        background: Sequence[Background] = (),
        collectors: Sequence[Collector] = (),
    ):
        """The live page adds routes, services that run in the background, and metrics."""
        self.settings = settings
        self._background = background
        self.metrics = ServerMetrics()
        for collector in collectors:
            self.metrics.register(collector)
        self.alias_follower = AliasFollower(
            Registry(settings.registry), settings.alias, self.metrics
        )
        self.recorder = None if settings.record is None else Recorder(settings)
        if self.recorder is not None:
            self.metrics.register(self.recorder.metrics)
        self.drift = DriftWatch(self.alias_follower.registry, settings.session_expiry_s)
        self.metrics.register(self.drift)
        self.action_service = ActionService(
            settings, self.alias_follower, self.metrics, recorder=self.recorder, drift=self.drift
        )
        self.registry_calls = RegistryCalls()
        self.operator = Operator(
            self.alias_follower.registry, settings.alias, f"server@{socket.gethostname()}"
        )
        self.rollout_follower = RolloutFollower(
            self.operator,
            self.alias_follower,
            self.action_service.arms,
            self.metrics,
            read_integrations(settings.integrations),
        )
        own: list[BaseRoute] = [
            Route("/v1/models", self._list_models),
            Route("/v1/models/{version}", self._show_model),
            Route("/v1/outcome", self._report, methods=["POST"]),
            *drift_routes(self.drift),
            Route("/v1/rollout", make_status_route(self._rollout)),
            Route("/v1/rollout/command", self._command_rollout, methods=["POST"]),
            Route("/health/live", self._live),
            Route("/health/ready", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._openapi),
            WebSocketRoute("/v1/drive", DriveSocket(self.action_service, settings).drive),
        ]
        self._others = Starlette(
            routes=[*own, *routes],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _http_error, RegistryError: _registry_error},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or serves one WebSocket."""
        if scope["type"] == "http" and scope["path"] == "/v1/act":
            await self._act(scope, receive, send)
        else:
            await self._others(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        before_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        await run_in_daemon_thread(self.alias_follower.load_first)
        if self.alias_follower.is_registry_empty:
            _LOGGER.warning(
                "%s holds no version: cars brake until one is published",
                self.alias_follower.registry.place,
            )
        following = asyncio.create_task(self.alias_follower.follow(self.settings.poll_s))
        if self.has_rollouts and self.metrics.is_registry_readable:
            # Before the first request, so that sessions of a rollout find their version.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.rollout_follower.turn_safely(), _FIRST_TURN_S)
        rollouts = asyncio.create_task(self._follow_rollouts())
        messages = asyncio.create_task(self.rollout_follower.notices.run())
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.rollout_follower.close)
            stack.callback(rollouts.cancel)
            stack.callback(messages.cancel)
            stack.callback(sys.setswitchinterval, before_s)
            stack.callback(self.action_service.close)
            stack.callback(following.cancel)
            self.drift.start()
            stack.push_async_callback(run_in_daemon_thread, self.drift.close)
            if self.recorder is not None:
                self.recorder.start()
                stack.push_async_callback(run_in_daemon_thread, self.recorder.close)
            for background in self._background:
                await stack.enter_async_context(background())
            # The objects of the start-up live as long as the process. With JAX, which the live
            # page loads, a full collection would traverse them and delay every client by 100 ms.
            gc.collect()
            gc.freeze()
            stack.callback(gc.unfreeze)
            yield

    async def _follow_rollouts(self) -> None:
        """Follows the rollouts of the alias; a fixed version and `latest` have none."""
        if self.has_rollouts:
            await self.rollout_follower.follow(self.settings.poll_s)

    @property
    def has_rollouts(self) -> bool:
        """Whether the version that acts can change by a rollout."""
        return not self.settings.alias.isdecimal() and self.settings.alias != "latest"

    async def _act(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_s = scope["rlcar.received_s"]
        if scope["method"] != "POST":
            await _send(send, 405, encode({"error": "only POST is allowed"}), (b"allow", b"POST"))
            return
        status = 200
        try:
            if not _is_json(scope):
                raise RequestError("the content type must be application/json", 415)
            require_uncompressed(scope["headers"])
            body = (await receive()).get("body", b"")
            checked = check_request(decode_act(body), self.action_service.interface)
            owner = scope["rlcar.identity"].name
            answer = await self.action_service.act(checked, owner, received_s)
        except RequestError as error:
            status, answer = error.status, self.action_service.refuse(str(error), received_s)
        await _send(send, status, encode(answer))

    async def _list_models(self, request: Request) -> Response:
        versions = await self.registry_calls.run(
            READ_TIMEOUT_S, self.alias_follower.registry.versions
        )
        current = self.alias_follower.current
        serving = None if current is None else current.number
        return _answer({"serving": serving, "models": [_summary(version) for version in versions]})

    async def _show_model(self, request: Request) -> Response:
        name = request.path_params["version"]
        if name == "serving":
            if self.alias_follower.current is None:
                raise HTTPException(404, "no version is served")
            name = str(self.alias_follower.current.number)
        version = await self.registry_calls.run(
            READ_TIMEOUT_S, self.alias_follower.registry.version, name
        )
        return _answer(_summary(version) | version.metadata)

    async def _report(self, request: Request) -> Response:
        try:
            require_uncompressed(request.headers.raw)
            laps, is_list = decode_laps(await request.body())
        except RequestError as error:
            return _answer({"error": str(error)}, error.status)
        owner = str(request.scope["rlcar.identity"].name)
        results = []
        for number, lap in enumerate(laps, 1):
            results.append(self.action_service.report(lap, owner))
            if number % _LAPS_AT_ONCE == 0:
                await asyncio.sleep(0)  # the other cars are answered in between
        if is_list:
            return _answer(msgspec.to_builtins(LapResults(results)))
        (result,) = results
        if result.status == "refused":
            return _answer({"error": result.reason}, 404)
        return _answer(msgspec.to_builtins(result))

    def _rollout(self) -> tuple[RolloutState | None, RolloutCounts]:
        return self.rollout_follower.state, self.rollout_follower.pooled

    async def _command_rollout(self, request: Request) -> Response:
        def run(work: Callable[[], RolloutState]) -> Awaitable[RolloutState]:
            return self.registry_calls.run(CHANGE_TIMEOUT_S, work)

        return await make_command_route(self.operator, run, try_model)(request)

    async def _live(self, request: Request) -> Response:
        return _answer({"status": "live"})

    async def _ready(self, request: Request) -> Response:
        current = self.alias_follower.current
        if current is None:
            return _answer({"status": "no model", "model_version": None}, 503)
        return _answer({"status": "ready", "model_version": current.number})

    async def _metrics(self, request: Request) -> Response:
        gauges = self.metrics.gauges
        sessions = self.action_service.sessions
        gauges["rlcar_sessions"] = len(sessions)
        gauges["rlcar_session_cars"] = sessions.cars
        current = self.alias_follower.current
        is_empty = current is None and self.alias_follower.is_registry_empty
        gauges["rlcar_model_awaited"] = float(is_empty and self.settings.waits_for_model)
        if current is not None:
            gauges["rlcar_model_version"] = current.number
            published = datetime.fromisoformat(current.policy.version.created)
            gauges["rlcar_model_published_timestamp_seconds"] = published.timestamp()
        gauges["rlcar_rollout_weight"] = gauges["rlcar_rollout_shadow_weight"] = 0.0
        gauges.pop("rlcar_rollout_candidate_version", None)
        active = self.action_service.arms.active
        if active is not None:
            gauges["rlcar_rollout_candidate_version"] = active.candidate.number
            gauges["rlcar_rollout_weight"] = active.weight
            gauges["rlcar_rollout_shadow_weight"] = active.shadow_weight
        text = "text/plain; version=0.0.4; charset=utf-8"
        return Response(self.metrics.render(), media_type=text)

    async def _openapi(self, request: Request) -> Response:
        return _answer(openapi(self.action_service.interface, self.settings))


def make_app(
    settings: ServeSettings,
    routes: Sequence[BaseRoute] = (),
    background: Sequence[Background] = (),
    collectors: Sequence[Collector] = (),
) -> Security:
    """Returns the application behind its guard.

    `routes` and `collectors` are added to the policy's; each of `background` is entered before the
    first request.
    """
    application = Application(settings, routes, background, collectors)
    return Security(application, settings, application.metrics.count)


def build(settings: ServeSettings) -> "RayApplication":
    """Returns the application for Ray Serve: `serve run serve.app:build registry=models`."""
    from ray import serve

    from serve.protocols.websocket import bound_ray_websockets

    def app() -> Security:
        bound_ray_websockets(settings)
        return make_app(settings.model_copy(update={"is_behind_haproxy": True}))

    deployment = serve.deployment(
        serve.ingress(app)(),
        name="RlcarPolicy",
        # The nodes of a cluster were started without this variable; see rlcar.cli.before_numpy.
        ray_actor_options={
            "num_cpus": 1,
            "runtime_env": {"env_vars": {"OPENBLAS_NUM_THREADS": "1"}},
        },
        # A WebSocket counts as one request until it closes.
        max_ongoing_requests=settings.connections,
        max_queued_requests=settings.in_flight,
        backpressure_config={"status_code": 429, "retry_after_s": 1.0},
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": settings.max_replicas,
            "target_ongoing_requests": settings.target_ongoing_requests,
        },
        # A new replica starts before an old one stops, so a single replica leaves no gap.
        max_surge_percent=100,
        graceful_shutdown_timeout_s=15.0,
        health_check_period_s=2.0,
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    return deployment.bind()


def _summary(version: Version) -> dict[str, object]:
    laps = version.metadata["laps"] or {}
    return {
        "version": version.number,
        "created": version.created,
        "aliases": list(version.aliases),
        "algorithm": version.metadata["algorithm"],
        "description": version.metadata["description"],
        "lap_rate": laps.get("lap_rate"),
        "lap_time_steps": laps.get("lap_time_steps"),
    }


def _answer(content: Mapping[str, object], status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    body = msgspec.json.encode(content)
    return Response(body, status, headers, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _answer({"error": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _registry_error(request: Request, error: Exception) -> Response:
    is_down = isinstance(error, RegistryUnavailableError)
    return _answer({"error": str(error)}, 503 if is_down else 404)


def _is_json(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-type":
            return bool(value.split(b";")[0].strip().lower() == b"application/json")
    return False


async def _send(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    start = {"status": status, "headers": [_JSON, length, _NO_STORE, *headers]}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": body})
