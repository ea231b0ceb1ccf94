"""Requests to the Kubernetes API: repeats them where that can help, and explains refusals."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from urllib.parse import quote, urlencode

from cluster.jobs.kubernetes.connect import Connection
from cluster.jobs.kubernetes.paths import Resource, path_of
from cluster.jobs.kubernetes.refusals import (
    FIELD_MANAGER,
    RefusedError,
    Request,
    Status,
    UnreachableError,
    refusal,
)
from cluster.jobs.kubernetes.retries import Patience, is_transient, pause_s, read_retry_after
from cluster.jobs.kubernetes.unreachable import unreachable

if TYPE_CHECKING:
    from kubernetes.client.rest import RESTResponse

Json = dict[str, Any]
T = TypeVar("T")
_CONNECT_S = 10.0
_READ_S = 30.0
_PAGE = 500  # objects in one answer of a list
_JSON = "application/json"
_JSON_PATCH = "application/json-patch+json"
_APPLY = "application/apply-patch+yaml"


class Event(NamedTuple):
    """A change that a watch reports."""

    kind: str  # ADDED, MODIFIED, DELETED
    object: Json


class ExpiredError(Exception):
    """The server no longer has the changes since the version from which a watch was to begin."""


class Api:
    """The requests that the client makes, as methods that take and return JSON."""

    def __init__(self, connection: Connection, patience: Patience | None = None):
        self.connection = connection
        self._patience = patience or Patience()

    @property
    def namespace(self) -> str:
        """The namespace of the commands."""
        return self.connection.namespace

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Json:
        """Returns one object."""
        request = Request("get", resource, self._scope(resource, namespace), name)
        return self._json("GET", request)

    def list_all(
        self,
        resource: Resource,
        *,
        everywhere: bool = False,
        namespace: str | None = None,
        labels: str = "",
    ) -> Json:
        """Returns a list with all its items, read page by page."""
        scope = None if everywhere else self._scope(resource, namespace)
        request = Request("list", resource, scope)
        query = {"limit": str(_PAGE)} | ({"labelSelector": labels} if labels else {})
        found: Json = {}
        while True:
            try:
                page = self._json("GET", request, query=query)
            except RefusedError as error:
                if error.code != 410 or "continue" not in query:
                    raise
                found = {}
                query.pop("continue")  # the pages have become too old: begin again
                continue
            page["items"] = (found.get("items") or []) + (page.get("items") or [])
            found = page
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    def create(self, resource: Resource, body: Json, *, dry_run: bool = False) -> Json:
        """Creates an object; unknown fields are refused and not dropped."""
        name = str((body.get("metadata") or {}).get("name", ""))
        namespace = (body.get("metadata") or {}).get("namespace")
        request = Request("create", resource, self._scope(resource, namespace), name)
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        path = path_of(resource, request.namespace)
        return self._json("POST", request, path, query | _dry(dry_run), body)

    def apply(
        self, resource: Resource, body: Json, *, force: bool = False, dry_run: bool = False
    ) -> Json:
        """Creates or changes an object by server-side apply."""
        name, namespace = body["metadata"]["name"], body["metadata"].get("namespace")
        request = Request("patch", resource, self._scope(resource, namespace), name)
        query = {
            "fieldManager": FIELD_MANAGER,
            "fieldValidation": "Strict",
            "force": str(force).lower(),
        }
        return self._json(
            "PATCH", request, query=query | _dry(dry_run), body=body, content_type=_APPLY
        )

    def patch(
        self,
        resource: Resource,
        name: str,
        operations: list[Json],
        *,
        manager: str = FIELD_MANAGER,
    ) -> Json:
        """Changes an object by the operations of a JSON patch."""
        request = Request("patch", resource, self._scope(resource, None), name)
        query = {"fieldManager": manager}
        return self._json("PATCH", request, query=query, body=operations, content_type=_JSON_PATCH)

    def delete(self, resource: Resource, name: str) -> Json:
        """Deletes an object; what it owns is deleted after it."""
        request = Request("delete", resource, self._scope(resource, None), name)
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        return self._json("DELETE", request, body=body)

    def raw(self, method: str, path: str, verb: str, body: Json | None = None) -> Json:
        """Requests any other path, such as that of a service behind the API server."""
        return self._json(method, Request(verb, None), path, body=body)

    def watch(
        self, resource: Resource, version: str, *, name: str = "", labels: str = "", seconds: int
    ) -> Iterator[Event]:
        """Returns the changes after `version` for some seconds.

        Raises ExpiredError if the server has forgotten that version, and UnreachableError if the
        connection is lost.
        """
        request = Request("watch", resource, self._scope(resource, None), name)
        query = {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
            "allowWatchBookmarks": "true",
        }
        query |= {"fieldSelector": f"metadata.name={name}"} if name else {}
        query |= {"labelSelector": labels} if labels else {}
        path = path_of(resource, request.namespace)
        try:
            for line in self._stream(request, path, query, seconds + _READ_S):
                event = json.loads(line)
                kind, changed = str(event["type"]), event["object"]
                if kind == "ERROR":
                    status = read_status(changed, int(changed.get("code", 500)), None)
                    if status.code == 410:
                        raise ExpiredError
                    raise refusal(status, request, self.connection.where)
                if kind != "BOOKMARK":
                    yield Event(kind, changed)
        except RefusedError as error:
            if error.code == 410:
                raise ExpiredError from None
            raise

    def log(
        self,
        pod: str,
        container: str,
        *,
        follow: bool,
        since: str | None,
        silence_s: float = _READ_S,
    ) -> Iterator[str]:
        """Returns the lines of a container's log, each with its timestamp.

        Raises UnreachableError after `silence_s` without a line, which may be a lost connection.
        """
        request = Request("get", Resource("", "v1", "pods/log"), self.namespace, pod)
        query = {"container": container, "timestamps": "true"}
        query |= {"follow": "true"} if follow else {}
        query |= {"sinceTime": since} if since else {}
        path = path_of(Resource("", "v1", "pods"), self.namespace, pod, "log")
        yield from self._stream(request, path, query, silence_s)

    def _scope(self, resource: Resource, namespace: str | None) -> str | None:
        return (namespace or self.namespace) if resource.namespaced else None

    def _json(
        self,
        method: str,
        request: Request,
        path: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Json | list[Json] | None = None,
        content_type: str = _JSON,
    ) -> Json:
        if path is None:
            assert request.resource is not None
            path = path_of(request.resource, request.namespace, request.name)
        url = _url(path, query)

        def once() -> Json:
            response = self._send(method, url, request, body, content_type, _READ_S)
            try:
                data = response.read()
            except Exception as error:
                raise self._unreachable(error) from error
            try:
                return cast(Json, json.loads(data or b"{}"))
            except ValueError:
                raise UnreachableError(
                    f"{self.connection.where} does not answer like a Kubernetes API server: "
                    "check the server's address in the kubeconfig"
                ) from None

        return self._repeat(once)

    def _stream(
        self, request: Request, path: str, query: Mapping[str, str], silence_s: float
    ) -> Iterator[str]:
        url = _url(path, query)
        response = self._repeat(lambda: self._send("GET", url, request, None, _JSON, silence_s))
        chunks, rest = response.response.stream(65_536), b""
        try:
            while True:
                try:
                    chunk = next(chunks, None)
                except Exception as error:
                    raise self._unreachable(error) from error
                if chunk is None:
                    return  # a line without its end is dropped: reading again returns all of it
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
        finally:
            # The rest of the answer may never come, so that the connection cannot be used again.
            response.response.close()

    def _send(
        self,
        method: str,
        url: str,
        request: Request,
        body: Json | list[Json] | None,
        content_type: str,
        read_s: float,
    ) -> "RESTResponse":
        """Sends one request; raises RefusedError, or UnreachableError without an answer."""
        client = self.connection.client
        headers = {"Accept": _JSON, "User-Agent": client.user_agent}
        if body is not None:
            headers["Content-Type"] = content_type
        path = f"{client.configuration.host}{url}"
        try:
            client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            response = client.call_api(
                method, path, headers, body, _request_timeout=(_CONNECT_S, read_s)
            )
            if response.status < 300:
                return response
            data = response.read()
        except Exception as error:
            raise self._unreachable(error) from error
        retry_after_s = read_retry_after(response.getheader("Retry-After"))
        status = read_status(data, response.status, retry_after_s)
        raise refusal(status, request, self.connection.where)

    def _repeat(self, once: Callable[[], T]) -> T:
        """Repeats a request after transient errors, and once with credentials that are read anew.

        Creating an object twice is refused by the server, and all other requests may be repeated.
        """
        has_reloaded, attempt = False, 0
        while True:
            try:
                return once()
            except RefusedError as error:
                if error.code == 401 and not has_reloaded:
                    self.connection.reload()
                    has_reloaded = True
                    continue
                if not is_transient(error.code) or attempt + 1 >= self._patience.attempts:
                    raise
                retry_after_s = error.status.retry_after_s
            except UnreachableError as error:
                if error.is_permanent or attempt + 1 >= self._patience.attempts:
                    raise
                retry_after_s = None
            time.sleep(pause_s(self._patience, attempt, retry_after_s))
            attempt += 1

    def _unreachable(self, error: Exception) -> Exception:
        return unreachable(error, self.connection.where)


def read_status(data: bytes | Json, code: int, retry_after_s: float | None) -> Status:
    """Reads the body of a refusal, which a proxy in between may have written in any form."""
    if isinstance(data, bytes):
        try:
            body = json.loads(data)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return Status(code, "", data.decode(errors="replace")[:500], {}, retry_after_s)
    else:
        body = data
    details = body.get("details") or {}
    if retry_after_s is None and details.get("retryAfterSeconds"):
        retry_after_s = float(details["retryAfterSeconds"])
    return Status(
        code, str(body.get("reason") or ""), str(body.get("message") or ""), details, retry_after_s
    )


def _url(path: str, query: Mapping[str, str] | None) -> str:
    text = quote(path, safe="/:")
    return f"{text}?{urlencode(query)}" if query else text


def _dry(is_dry: bool) -> dict[str, str]:
    return {"dryRun": "All"} if is_dry else {}
