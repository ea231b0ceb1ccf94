"""Measures metrics of an analysis by queries to a Prometheus server."""

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Any

import httpx

from serve.delivery.integrations import Prometheus
from serve.delivery.specification import AnalysisMetric
from serve.delivery.state import RolloutState

_LOGGER = logging.getLogger(__name__)
_TIMEOUT_S = 3.0
_LARGEST_ANSWER_BYTES = 1 << 20


class QueryError(Exception):
    """A query that gave no number, with the reason."""


class PrometheusSource:
    """Runs instant queries on one Prometheus server."""

    def __init__(self, address: Prometheus):
        self._url = f"{address.url.rstrip('/')}/api/v1/query"
        token = address.token
        self._headers = (
            {} if token is None else {"authorization": f"Bearer {token.get_secret_value()}"}
        )
        self._client: httpx.AsyncClient | None = None  # made at the first query, as it takes 20 ms
        self._reasons: dict[str, str] = {}  # why a query has no value, as the log says

    async def measure(
        self, metrics: Sequence[AnalysisMetric], state: RolloutState
    ) -> dict[str, float | None]:
        """Returns the value of each metric's query by the metric's name; None without a number."""
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, headers=self._headers)
        client = self._client
        values = await asyncio.gather(*(self._value(client, metric, state) for metric in metrics))
        return {metric.name: value for metric, value in zip(metrics, values, strict=True)}

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _value(
        self, client: httpx.AsyncClient, metric: AnalysisMetric, state: RolloutState
    ) -> float | None:
        query = filled(metric.query or "", state)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                value = await _ask(client, self._url, query)
        except (QueryError, httpx.HTTPError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            if self._reasons.get(query) != reason:
                _LOGGER.error("metric %r of the rollout has no value: %s", metric.name, reason)
            self._reasons[query] = reason
            return None
        self._reasons.pop(query, None)
        return value


def filled(query: str, state: RolloutState) -> str:
    """Returns a query with the numbers of the versions in their places."""
    query = query.replace("{{candidate}}", str(state.candidate))
    return query.replace("{{stable}}", str(state.stable))


async def _ask(client: httpx.AsyncClient, url: str, query: str) -> float:
    async with client.stream("POST", url, data={"query": query}) as answer:
        body = b""
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > _LARGEST_ANSWER_BYTES:
                raise QueryError("the answer is larger than 1 MiB: aggregate it to one number")
    try:
        tree = httpx.Response(200, content=body).json()
        if tree["status"] != "success":
            raise QueryError(f"Prometheus refuses the query: {tree.get('error')}")
        return _number(tree["data"])
    except (ValueError, KeyError, TypeError, IndexError):
        raise QueryError(
            f"the answer ({answer.status_code}) is not that of Prometheus: check its address and "
            "token"
        ) from None


def _number(data: dict[str, Any]) -> float:
    result = data["result"]
    if data["resultType"] == "scalar":
        text = result[1]
    elif data["resultType"] != "vector":
        raise QueryError(
            f"the query gives a {data['resultType']}: it must give one number, for example with "
            "sum(...)"
        )
    elif len(result) != 1:
        what = f"{len(result)} series" if result else "no data"
        raise QueryError(f"the query gives {what}: it must give one number, as sum(...) does")
    else:
        text = result[0]["value"][1]
    value = float(text)
    if not math.isfinite(value):
        raise QueryError(f"the query gives {text}")
    return value
