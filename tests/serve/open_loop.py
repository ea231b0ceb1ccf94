"""Cars that send 100 requests a second, answered or not, and record the answers."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import numpy as np


class Told(NamedTuple):
    """One answer."""

    session: str
    status: int
    source: str
    version: int | None
    steps: int | None
    sent_s: float
    received_s: float


async def ask_open_loop(
    url: str,
    per_s: float,
    sessions: int,
    is_over: Callable[[], bool],
    told: list[Told],
    at_once: int = 1_000_000,
) -> None:
    """Sends a request every 1 / `per_s` seconds, without waiting for answers; none is repeated.

    It waits only while `at_once` requests are without an answer. The answers are added to `told` as
    they come, for other threads to look at.
    """
    rng = np.random.default_rng(0)
    heard: dict[str, int] = {}  # the last version of each car, which it sends like the SDK
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=sessions)

    async def ask(web: httpx.AsyncClient, number: int) -> None:
        session = f"car-{number % sessions}"
        body = {"observation": rng.random(6).tolist(), "session": session, "deadline_ms": 1000}
        if session in heard:
            body["model_version"] = heard[session]
        began_s = time.perf_counter()
        answer = await web.post("/v1/act", json=body, headers={"x-session-id": session})
        content: dict[str, Any] = answer.json()
        version = content.get("model_version")
        heard[session] = max(version or 0, heard.get(session, 0))
        told.append(
            Told(
                session,
                answer.status_code,
                content.get("source", ""),
                version,
                content.get("session_steps"),
                began_s,
                time.perf_counter(),
            )
        )

    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30.0, trust_env=False) as web:
        began_s, number, running = time.perf_counter(), 0, set()
        while not is_over():
            task = asyncio.create_task(ask(web, number))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
            await asyncio.sleep(max(0.0, began_s + number / per_s - time.perf_counter()))
            while len(running) >= at_once:
                await asyncio.wait(set(running), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*running)


def flips(told: list[Told]) -> list[tuple[Told, Told]]:
    """Returns answers with an older version than the same car had received before its request."""
    found = []
    for session in {one.session for one in told}:
        own = [one for one in told if one.session == session]
        for later in own:
            before = [one for one in own if one.received_s < later.sent_s]
            newest = max(before, key=lambda one: one.version or 0, default=None)
            if newest is not None and (newest.version or 0) > (later.version or 0):
                found.append((newest, later))
    return found


@contextlib.contextmanager
def driving_cars(url: str, per_s: float, cars: int = 10, at_once: int = 8) -> Iterator[list[Told]]:
    """Drives cars until the block ends; yields the list of their answers."""
    over = threading.Event()
    told: list[Told] = []
    work = ask_open_loop(url, per_s, cars, over.is_set, told, at_once)
    thread = threading.Thread(target=lambda: asyncio.run(work))
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()
