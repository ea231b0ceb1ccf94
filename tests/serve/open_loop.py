"""Cars that ask 100 times a second whether they are answered or not, and what they were told."""

import asyncio
import time
from collections.abc import Callable
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
    latency_s: float


async def ask_open_loop(
    url: str, per_s: float, sessions: int, is_over: Callable[[], bool]
) -> list[Told]:
    """Sends a request every 1 / `per_s` seconds, never waiting for the last; none is repeated."""
    rng = np.random.default_rng(0)
    told: list[Told] = []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=sessions)

    async def ask(web: httpx.AsyncClient, number: int) -> None:
        session = f"car-{number % sessions}"
        body = {"observation": rng.random(6).tolist(), "session": session, "deadline_ms": 1000}
        began_s = time.perf_counter()
        answer = await web.post("/v1/act", json=body, headers={"x-session-id": session})
        content: dict[str, Any] = answer.json()
        told.append(
            Told(
                session,
                answer.status_code,
                content.get("source", ""),
                content.get("model_version"),
                content.get("session_steps"),
                time.perf_counter() - began_s,
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
        await asyncio.gather(*running)
    return told


def versions_by_session(told: list[Told]) -> dict[str, list[int]]:
    """The versions that each session heard of, in the order of the answers, without repeats."""
    heard: dict[str, list[int]] = {}
    for one in told:
        versions = heard.setdefault(one.session, [])
        if one.version is not None and one.version not in versions[-1:]:
            versions.append(one.version)
    return heard
