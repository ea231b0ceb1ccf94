"""A fake API server for tests: real HTTP or HTTPS, with the requests that our client makes."""

import contextlib
import datetime
import json
import re
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.kubernetes.patches import json_patched, merge_patched
from tests.support.kubernetes.rights import forbidden_message, may
from tests.support.kubernetes.store import ApiError, Key, Store, qualified
from tests.support.kubernetes.validation import check, check_quota

Json = dict[str, Any]
_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v\w+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<part>[a-z]+))?"
)
_VERSIONS = {
    "": "v1",
    "apps": "v1",
    "batch": "v1",
    "ray.io": "v1",
    "rbac.authorization.k8s.io": "v1",
    "authorization.k8s.io": "v1",
    "scheduling.k8s.io": "v1",
    "storage.k8s.io": "v1",
    "apiextensions.k8s.io": "v1",
    "kueue.x-k8s.io": "v1beta2",
}
_CLUSTER_WIDE = (
    *("namespaces", "nodes", "clusterroles", "clusterrolebindings", "storageclasses"),
    *("customresourcedefinitions", "priorityclasses", "selfsubjectaccessreviews"),
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Fault(NamedTuple):
    """An answer in place of the proper one, for requests that match."""

    method: str
    path: str  # regular expression
    code: int  # 0: the connection is closed without an answer
    body: Json | str = ""
    headers: dict[str, str] = {}


class Target(NamedTuple):
    """What a request concerns."""

    key: Key
    part: str
    namespace: str | None  # None: all namespaces, or a cluster-wide object


class FakeKubernetes(ThreadingHTTPServer):
    """The server; tests change its public attributes while it runs."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, certificate: tuple[Path, Path] | None = None, authority: Path | None = None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = Store()
        self.tokens: dict[str, str] = {}  # token -> user
        self.faults: list[Fault] = []  # each is used once
        self.requests: list[tuple[str, str]] = []
        self.missing_groups: set[str] = set()  # API groups whose CRDs are not installed
        self.admission: list[Callable[[str, Key, Json], None]] = []
        self.logs: dict[tuple[str, str, str], list[str]] = {}  # lines with their timestamps
        self.version = "v1.36.2"
        self._scheme = "http" if certificate is None else "https"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            if authority is not None:
                context.load_verify_locations(authority)
                context.verify_mode = ssl.CERT_OPTIONAL
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"{self._scheme}://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that went away."""

    def add_token(self, user: str) -> str:
        """Returns a new token of a user."""
        token = secrets.token_urlsafe(16)
        self.tokens[token] = user
        return token

    def __enter__(self) -> "FakeKubernetes":
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeKubernetes

    def log_message(self, *_: Any) -> None:
        """Prints nothing."""

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._data = self.rfile.read(length)
        self.server.requests.append((self.command, self.path))
        for fault in list(self.server.faults):
            if fault.method == self.command and re.search(fault.path, self.path):
                self.server.faults.remove(fault)
                self._fail(fault)
                return
        try:
            self._answer_request()
        except ApiError as error:
            self._answer(error.code, status_of(error))

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _handle  # noqa: N815

    def _fail(self, fault: Fault) -> None:
        if fault.code == 0:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
        self._send(fault.code, body.encode(), fault.headers)

    def _answer_request(self) -> None:
        parts = urlsplit(self.path)
        self._query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self._user = self._authenticate()
        if parts.path == "/version":
            major, minor = self.server.version[1:].split(".")[:2]
            self._answer(200, {"gitVersion": self.server.version, "major": major, "minor": minor})
            return
        if parts.path == "/apis/ray.io/v1" and "ray.io" not in self.server.missing_groups:
            names = ("rayclusters", "raycronjobs", "rayjobs", "rayjobs/status", "rayservices")
            self._answer(200, {"resources": [{"name": name} for name in names]})
            return
        target = self._target(unquote(parts.path))
        if target is None:
            self._send(404, b"404 page not found\n", {"Content-Type": "text/plain"})
        elif target.key.plural == "selfsubjectaccessreviews":
            self._review()
        else:
            self._check_rights(target)
            self._act(target)

    def _authenticate(self) -> str:
        header = self.headers.get("Authorization", "")
        if header:
            user = self.server.tokens.get(header.partition(" ")[2])
            if user is None:
                raise ApiError(401, "Unauthorized", "Unauthorized")
            return user
        certificate = getattr(self.connection, "getpeercert", dict)()
        for ((name, value),) in (certificate or {}).get("subject", ()):
            if name == "commonName":
                return str(value)
        return "system:anonymous"

    def _target(self, path: str) -> Target | None:
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        group, plural = match["group"] or "", match["plural"]
        if _VERSIONS.get(group) != match["version"] or group in self.server.missing_groups:
            return None
        namespace = None if plural in _CLUSTER_WIDE else match["namespace"]
        key = Key(group, plural, namespace or "", match["name"] or "")
        return Target(key, match["part"] or "", namespace)

    def _check_rights(self, target: Target) -> None:
        key = target.key
        verb = _VERBS.get(self.command, "get" if key.name else "list")
        if "watch" in self._query and not key.name:
            verb = "watch"
        resource = f"{key.plural}/{target.part}" if target.part else key.plural
        if not may(self.server.store, self._user, verb, key.group, resource, target.namespace):
            about = (verb, key.group, resource, key.name, target.namespace)
            raise ApiError(403, "Forbidden", forbidden_message(self._user, *about), kind=key.plural)

    def _act(self, target: Target) -> None:
        key, store = target.key, self.server.store
        if self.command == "GET" and target.part == "log":
            self._log(key)
        elif self.command == "GET" and key.name:
            self._answer(200, store.get(key))
        elif self.command == "GET" and "watch" in self._query:
            self._watch(target)
        elif self.command == "GET":
            self._list(target)
        elif self.command == "DELETE":
            self._answer(200, store.delete(key))
        elif target.part == "token":
            token = self.server.add_token(f"system:serviceaccount:{key.namespace}:{key.name}")
            self._answer(201, {"kind": "TokenRequest", "status": {"token": token}})
        else:
            self._write(key, json.loads(self._data))

    def _write(self, key: Key, body: Any) -> None:
        store, manager = self.server.store, self._query.get("fieldManager", "curl")
        kind, is_dry = self.headers.get("Content-Type", ""), self._query.get("dryRun") == "All"
        with store.changed:
            if self.command == "POST":
                key = key._replace(name=str(body["metadata"].get("name", "")))
            if key.namespace and key.plural != "namespaces":
                store.get(Key("", "namespaces", "", key.namespace))
            if "json-patch" in kind:
                changed = json_patched(store.get(key), body)
            elif "merge-patch" in kind:
                changed = merge_patched(store.get(key), body)
            else:
                changed = body
            check(key, changed, is_strict=self._query.get("fieldValidation") == "Strict")
            if self.command == "POST":
                check_quota(store, key)
            for rule in self.server.admission:
                rule(self.command, key, changed)
            if is_dry:
                self._answer_dry(key, changed)
            elif self.command == "POST":
                self._answer(201, store.create(key, changed, manager))
            elif "apply-patch" in kind:
                force = self._query.get("force") == "true"
                self._answer(200, store.apply(key, changed, manager, force=force))
            else:
                self._answer(200, store.update(key, changed, manager))

    def _answer_dry(self, key: Key, changed: Json) -> None:
        """Answers as if the object had been written."""
        trial = Store()
        with contextlib.suppress(ApiError):
            there = self.server.store.get(key)
            if self.command == "POST":
                raise_for = f'{qualified(key)} "{key.name}" already exists'
                error = ApiError(409, "AlreadyExists", raise_for, name=key.name)
                self._answer(409, status_of(error))
                return
            trial.create(key, there, "curl")
        self._answer(201, trial.apply(key, changed, "dry", force=True))

    def _list(self, target: Target) -> None:
        key, store = target.key, self.server.store
        with store.changed:
            found = [
                o for o in store.select(key.group, key.plural, target.namespace) if self._fits(o)
            ]
            version, start = store.newest, 0
            if token := self._query.get("continue"):
                listed, _, begin = token.partition(":")
                if int(listed) < store.oldest:
                    raise ApiError(410, "Expired", "The provided continue parameter is too old")
                start = int(begin)
        limit = int(self._query.get("limit") or 0) or len(found)
        metadata: Json = {"resourceVersion": str(version)}
        if start + limit < len(found):
            metadata["continue"] = f"{version}:{start + limit}"
        self._answer(200, {"metadata": metadata, "items": found[start : start + limit]})

    def _watch(self, target: Target) -> None:
        key, store = target.key, self.server.store
        version = int(self._query.get("resourceVersion") or 0)
        self._begin_stream()
        if version < store.oldest:
            message = f"too old resource version: {version} ({store.oldest})"
            status = status_of(ApiError(410, "Expired", message))
            self._chunk(json.dumps({"type": "ERROR", "object": status}) + "\n")
        else:
            seconds = float(self._query.get("timeoutSeconds") or 60)
            for change in store.changes(version, seconds):
                where = (change.key.group, change.key.plural)
                is_here = target.namespace in (None, change.key.namespace)
                if where == (key.group, key.plural) and is_here and self._fits(change.object):
                    event = {"type": change.kind, "object": change.object}
                    self._chunk(json.dumps(event) + "\n")
        self._chunk("")

    def _log(self, key: Key) -> None:
        pod = self.server.store.get(key)
        containers = [c["name"] for c in pod["spec"]["containers"]]
        container = self._query.get("container") or containers[0]
        if container not in containers:
            message = f"container {container} is not valid for pod {key.name}"
            raise ApiError(400, "BadRequest", message)
        lines = self.server.logs.setdefault((key.namespace, key.name, container), [])
        since = _seconds(self._query["sinceTime"]) if "sinceTime" in self._query else 0.0
        self._begin_stream()
        shown = 0
        while True:
            is_over = self._is_over(key)
            while shown < len(lines):
                line, shown = lines[shown], shown + 1
                stamp, _, text = line.partition(" ")
                if _seconds(stamp) >= since:
                    self._chunk((line if "timestamps" in self._query else text) + "\n")
            if "follow" not in self._query or is_over:
                break
            time.sleep(0.02)
        self._chunk("")

    def _is_over(self, key: Key) -> bool:
        try:
            phase = (self.server.store.get(key).get("status") or {}).get("phase")
        except ApiError:
            return True
        return phase in ("Succeeded", "Failed")

    def _review(self) -> None:
        body = json.loads(self._data)
        about = body["spec"]["resourceAttributes"]
        part = f"/{about['subresource']}" if about.get("subresource") else ""
        body["status"] = {
            "allowed": may(
                self.server.store,
                self._user,
                about["verb"],
                about.get("group", ""),
                f"{about['resource']}{part}",
                about.get("namespace"),
            )
        }
        self._answer(201, body)

    def _fits(self, found: Json) -> bool:
        labels = found["metadata"].get("labels") or {}
        for term in filter(None, self._query.get("labelSelector", "").split(",")):
            name, _, value = term.partition("=")
            if labels.get(name) != value:
                return False
        field = self._query.get("fieldSelector", "").partition("metadata.name=")[2]
        return not field or found["metadata"]["name"] == field

    def _answer(self, code: int, body: Json) -> None:
        self._send(code, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def status_of(error: ApiError) -> Json:
    """Returns the body of an answer with an error."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return status | {
        "message": error.message,
        "reason": error.reason,
        "details": error.details,
        "code": error.code,
    }


def _seconds(stamp: str) -> float:
    return datetime.datetime.fromisoformat(f"{stamp[:19]}+00:00").timestamp()
