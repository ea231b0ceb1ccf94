"""Tells webhooks and Grafana what happens to rollouts.

Every server sees every entry of the journal. The one that claims an entry first, in the registry,
sends it; so each receiver gets one message for an entry, however many servers there are. If that
server is killed before it has succeeded, the message is lost: the journal is the record.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import httpx

from serve.delivery.events import Entry, Measured
from serve.delivery.integrations import Grafana, Integrations, Webhook
from serve.delivery.report import described, sentence, summary, tree_of
from serve.delivery.state import RolloutState, apply
from serve.observing.metrics import ServerMetrics

_LOGGER = logging.getLogger(__name__)
_TIMEOUT_S = 5.0
_WAITS_S = (0.5, 1.0, 2.0, 4.0)  # between attempts, so there are five
_MOST_WAITING = 100
# A server that starts sends what happened while none ran, but not the whole past.
_OLDEST_S = 600.0
_TEMPORARY = frozenset({408, 425, 429})

Claim = Callable[[int], Awaitable[bool]]


class Message(NamedTuple):
    """An entry of the journal, and the state of the rollout after it."""

    alias: str
    entry: Entry
    state: RolloutState

    @property
    def text(self) -> str:
        """The entry and the state in one line."""
        return f"{sentence(self.entry.event)} ({self.alias}, {summary(self.state)})"


class Request(NamedTuple):
    """What is sent to one receiver."""

    url: str
    content: bytes
    headers: dict[str, str]


class Notices:
    """Sends the new entries of one journal in the background, to each receiver in their order."""

    def __init__(
        self, integrations: Integrations, alias: str, claim: Claim, metrics: ServerMetrics
    ):
        """`claim` returns True to the one server that is to send an entry."""
        self._alias, self._claim, self._metrics = alias, claim, metrics
        makers = [partial(webhook_request, one) for one in integrations.webhooks]
        if integrations.grafana is not None:
            makers.append(partial(grafana_request, integrations.grafana))
        self._receivers = [_Receiver(make, metrics) for make in makers]
        self._seen = 0  # number of the last entry that was looked at
        self._unclaimed: asyncio.Queue[Message] = asyncio.Queue(_MOST_WAITING)

    def look(self, entries: Sequence[Entry]) -> None:
        """Takes the entries of the whole journal; those that are new are sent soon."""
        if not self._receivers or not entries or entries[-1].number == self._seen:
            return
        state: RolloutState | None = None
        oldest_s = time.time() - _OLDEST_S
        for entry in entries:
            state = apply(state, entry)
            if entry.number <= self._seen or entry.time_s < oldest_s:
                continue
            if isinstance(entry.event, Measured):
                continue
            try:
                self._unclaimed.put_nowait(Message(self._alias, entry, state))
            except asyncio.QueueFull:
                self._fail(entry, "too many others wait")
        self._seen = entries[-1].number

    async def run(self) -> None:
        """Sends for ever."""
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client, asyncio.TaskGroup() as tasks:
            for receiver in self._receivers:
                tasks.create_task(receiver.run(client))
            while True:
                message = await self._unclaimed.get()
                if await self._is_claimed(message.entry):
                    for receiver in self._receivers:
                        receiver.take(message)

    async def _is_claimed(self, entry: Entry) -> bool:
        """Whether this server is to send an entry; a registry that fails is tried again."""
        reason = ""
        for wait_s in (0.0, *_WAITS_S):
            await asyncio.sleep(wait_s)
            try:
                return await self._claim(entry.number)
            except Exception as error:
                reason = str(error)
        self._fail(entry, reason)
        return False

    def _fail(self, entry: Entry, reason: str) -> None:
        self._metrics.failed_messages += 1
        _LOGGER.error("entry %d of the rollout is not announced: %s", entry.number, reason)


class _Receiver:
    """Sends messages to one address, one after the other."""

    def __init__(self, make_request: Callable[[Message], Request], metrics: ServerMetrics):
        self._make_request, self._metrics = make_request, metrics
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(_MOST_WAITING)

    def take(self, message: Message) -> None:
        """Sends a message after those that wait; of too many, the newest is lost."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self._fail(self._make_request(message), "too many messages wait")

    async def run(self, client: httpx.AsyncClient) -> None:
        """Sends for ever, whatever happens."""
        while True:
            request = self._make_request(await self._waiting.get())
            problem = await _sent(client, request)
            if problem:
                self._fail(request, problem)

    def _fail(self, request: Request, problem: str) -> None:
        self._metrics.failed_messages += 1
        # The rest of an address may hold a secret.
        host = httpx.URL(request.url).host
        _LOGGER.error("%s was not told of the rollout: %s", host, problem)


async def _sent(client: httpx.AsyncClient, request: Request) -> str:
    """Sends a request, in several attempts; returns why it failed, or nothing."""
    problem = ""
    for wait_s in (0.0, *_WAITS_S):
        await asyncio.sleep(wait_s)
        try:
            # The timeouts of httpx are for single operations; this one is for the whole.
            async with asyncio.timeout(_TIMEOUT_S):
                status = await _post(client, request)
        except Exception as error:  # whatever it is, other receivers must not suffer
            problem = str(error) or type(error).__name__
            continue
        if 200 <= status < 300:
            return ""
        problem = f"status {status}"
        if status < 500 and status not in _TEMPORARY:
            break
    return problem


async def _post(client: httpx.AsyncClient, request: Request) -> int:
    """Returns the status of the answer, whose body is not read."""
    async with client.stream(
        "POST", request.url, content=request.content, headers=request.headers
    ) as answer:
        return answer.status_code


def webhook_request(webhook: Webhook, message: Message) -> Request:
    """Returns the request to a webhook; its `text` is what chat programs show."""
    tree: dict[str, Any] = {
        "text": message.text,
        "alias": message.alias,
        "entry": tree_of(message.entry),
        "rollout": described(message.state),
    }
    content = json.dumps(tree, allow_nan=False).encode()
    headers = {"content-type": "application/json"}
    if webhook.secret is not None:
        key = webhook.secret.get_secret_value().encode()
        digest = hmac.new(key, content, hashlib.sha256).hexdigest()
        headers["x-rlcar-signature-256"] = f"sha256={digest}"
    return Request(webhook.url, content, headers)


def grafana_request(grafana: Grafana, message: Message) -> Request:
    """Returns the request that creates an annotation at the time of the entry."""
    tree = {
        "time": round(1000.0 * message.entry.time_s),
        "tags": ["rlcar", "rollout", message.alias],
        "text": message.text,
    }
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {grafana.token.get_secret_value()}",
    }
    url = f"{grafana.url.rstrip('/')}/api/annotations"
    return Request(url, json.dumps(tree, allow_nan=False).encode(), headers)
