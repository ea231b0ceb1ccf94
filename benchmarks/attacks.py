"""Attacks on the policy server from the network, over raw sockets; none of them needs a token.

    python benchmarks/attacks.py NAME --port PORT [--source 127.0.0.2] [--seconds 10]

Runs one attack in a separate process and prints its counts as one line of JSON. `attack.py` and
`attack_soak.py` start this program beside honest clients, as `tests/serve/lanes/test_attacks.py`
does.

An attack is one function that describes what a single hostile connection does. The runner keeps a
fixed number of such connections open for the whole time, and opens a new one some time after the
server has closed one. Two things keep the attacker from measuring itself instead of the server:
the process runs with the lowest priority, and it sends at most `BYTES_PER_S` in total.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.load import masked, upgrade

BYTES_PER_S = 64e6
BLOCK_BYTES = 64 * 1024
NICENESS = 19
# A hostile client that was disconnected comes back after so many seconds for each connection of
# its fleet: 600 connections then make at most 600 attempts a second.
_RETURN_S, _SOONEST_RETURN_S = 1.0 / 600, 0.2
_TEXT, _CONTINUATION, _PING = 0x01, 0x00, 0x09
_ESTABLISHED = 1  # TCP's state, in the first byte of TCP_INFO
_LAST = 0x80  # the first byte's flag of a message's last frame
_ONE_CAR = struct.pack("<IHHB3x6f", 1, 0, 1, 0, *[0.5] * 6)  # serve/api/frames.py: REQUEST_HEAD
_MANY_CARS = json.dumps({"observations": [[0.5] * 6] * 256}).encode()  # api/schema.py: MAX_CARS


@dataclasses.dataclass
class Fleet:
    """All hostile connections of one attack: their target, their source address, their counts."""

    port: int
    source: str = "127.0.0.2"
    host: str = "127.0.0.1"
    opened: int = 0
    refused: int = 0  # attempts to connect that failed
    closed: int = 0  # connections that the server ended
    sent_bytes: int = 0
    received_bytes: int = 0
    _free_s: float = 0.0  # when the next block may be sent

    async def pace(self, size: int) -> None:
        """Waits until `size` more bytes are within the rate."""
        now_s = asyncio.get_running_loop().time()
        self._free_s = max(now_s, self._free_s) + size / BYTES_PER_S
        await asyncio.sleep(max(0.0, self._free_s - now_s))


class Line:
    """One hostile connection."""

    def __init__(self, fleet: Fleet, line: socket.socket, number: int):
        self.fleet, self.number, self._line = fleet, number, line
        self.url = f"http://{fleet.host}:{fleet.port}"

    async def send(self, data: bytes) -> None:
        """Sends, as fast as the server reads and the fleet's rate allows."""
        view = memoryview(data)
        while view:
            block, view = view[:BLOCK_BYTES], view[BLOCK_BYTES:]
            await self.fleet.pace(len(block))
            await asyncio.get_running_loop().sock_sendall(self._line, block)
            self.fleet.sent_bytes += len(block)

    async def send_for_ever(self, data: bytes) -> None:
        """Sends the same again and again."""
        while True:
            await self.send(data)

    async def receive(self) -> bytes:
        """Returns what comes next; raises ConnectionError when the server has hung up."""
        data = await asyncio.get_running_loop().sock_recv(self._line, BLOCK_BYTES)
        self.fleet.received_bytes += len(data)
        if not data:
            raise ConnectionError("the server hung up")
        return data

    async def head(self) -> bytes:
        """Returns the beginning of an answer, up to the end of its headers at least."""
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await self.receive()
        return answer

    async def read_for_ever(self) -> None:
        """Reads whatever comes, until the server hangs up."""
        while True:
            await self.receive()

    async def ignore(self) -> None:
        """Reads nothing; raises ConnectionError when the server has hung up nevertheless."""
        while self._line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:
            await asyncio.sleep(0.2)
        raise ConnectionError("the server hung up")

    async def upgrade(self, path: str) -> None:
        """Opens a WebSocket; raises ConnectionError when the server does not."""
        await self.send(upgrade(self.url, path))
        status = (await self.head()).split(b"\r\n")[0]
        if b" 101 " not in status:
            raise ConnectionError(f"no WebSocket: {status.decode('latin-1')}")

    def request(self, method: str, path: str, *headers: str, host: str | None = None) -> bytes:
        """The head of a request."""
        named = host or f"{self.fleet.host}:{self.fleet.port}"
        return "\r\n".join(
            [f"{method} {path} HTTP/1.1", f"Host: {named}", *headers, "", ""]
        ).encode()


def _block(message: bytes) -> bytes:
    """Repeats a message until it fills one block."""
    return message * (BLOCK_BYTES // len(message))


async def health_crlf(line: Line) -> None:
    """Reads the answer to a health check, sends one empty line, and waits.

    The empty line may come before a request. A parser that waits for the rest of that request
    without a timeout keeps the connection for ever.
    """
    await line.send(line.request("GET", "/health/live"))
    await line.head()
    await line.send(b"\r\n")
    await line.read_for_ever()


async def refused_body(line: Line) -> None:
    """Announces a body, is refused with 421, and sends a single byte of the body.

    A server that waits for the rest of a body that it has refused keeps the connection.
    """
    headers = "Content-Type: application/json", "Content-Length: 20000"
    await line.send(line.request("POST", "/v1/act", *headers, host="evil"))
    await line.head()
    await line.send(b"x")
    await line.read_for_ever()


async def websocket_many_headers(line: Line) -> None:
    """Asks for a WebSocket with 200 headers more than usual, and waits for the answer."""
    many = [f"X-{number}: value" for number in range(200)]
    await line.send(upgrade(line.url, "/v1/drive", *many))
    await line.read_for_ever()


async def trailers(line: Line) -> None:
    """Ends a chunked body with trailers that never end: memory grows where they are collected."""
    kind = "Content-Type: application/json", "Transfer-Encoding: chunked"
    await line.send(line.request("POST", "/v1/act", *kind) + b"0\r\n")
    await line.send_for_ever(_block(b"a: b\r\n"))


async def pipelining(line: Line) -> None:
    """Sends requests without end and reads no answer: memory grows where either is queued."""
    await line.send_for_ever(_block(line.request("GET", "/x")))


async def websocket_fragments(line: Line) -> None:
    """Begins a message and continues it with empty fragments, which cost nothing but time."""
    await line.upgrade("/v1/drive")
    await line.send(masked(b"", _TEXT))
    await line.send_for_ever(_block(masked(b"", _CONTINUATION)))


async def websocket_pings(line: Line) -> None:
    """Sends pings of one byte; every second connection reads the pongs, the others do not."""
    await _ping(line, "/v1/drive")


async def websocket_burst(line: Line) -> None:
    """Sends 4,000 valid frames at once, reads the answers as they come, and sends the next."""
    await line.upgrade("/v1/drive")
    burst = masked(_ONE_CAR) * 4000
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(line.read_for_ever())
        tasks.create_task(line.send_for_ever(burst))


async def slow_readers(line: Line) -> None:
    """Requests the largest responses ten times, and never reads one.

    They are the description of the interface, and for every sixteenth connection the actions of
    256 cars and the metrics. The connections come one after the other, so that the server is not
    merely busy with computing the answers.
    """
    await asyncio.sleep(0.025 * line.number)
    kind = "Content-Type: application/json", f"Content-Length: {len(_MANY_CARS)}"
    request = line.request("GET", "/openapi.json")
    if line.number % 16 == 0:
        request = line.request("GET", "/metrics") * 2
        request += line.request("POST", "/v1/act", *kind) + _MANY_CARS
    await line.send(request * 10)
    await line.ignore()


async def page_takes(line: Line) -> None:
    """Takes and leaves the wheel 600 times at once, again and again, and reads what is said."""
    await line.upgrade("/live")
    taken, left = (masked(b'{"type":"%s"}' % what, _LAST | _TEXT) for what in (b"take", b"leave"))

    async def take() -> None:
        while True:
            await line.send((taken + left) * 300)
            await asyncio.sleep(0.5)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(line.read_for_ever())
        tasks.create_task(take())


async def page_slow_video(line: Line) -> None:
    """Asks for the endless video and never reads it."""
    await line.send(line.request("GET", "/video_feed"))
    await line.ignore()


async def page_slow_live(line: Line) -> None:
    """Watches the page's stream without reading it."""
    await line.send(upgrade(line.url, "/live"))
    await line.ignore()


async def page_fragments(line: Line) -> None:
    """Sends empty fragments without end to the page's stream."""
    await line.upgrade("/live")
    await line.send(masked(b"", _TEXT))
    await line.send_for_ever(_block(masked(b"", _CONTINUATION)))


async def page_pings(line: Line) -> None:
    """Sends pings of one byte without end to the page's stream."""
    await _ping(line, "/live")


async def _ping(line: Line, path: str) -> None:
    await line.upgrade(path)
    async with asyncio.TaskGroup() as tasks:
        if line.number % 2:
            tasks.create_task(line.read_for_ever())
        tasks.create_task(line.send_for_ever(_block(masked(b"x", _LAST | _PING))))


class Attack(NamedTuple):
    """How many connections an attack holds, and what each of them does."""

    life: Callable[[Line], Awaitable[None]]
    connections: int
    item: str  # of issue 19
    needs_page: bool = False
    reads: bool = True  # else its socket takes as little as possible


ATTACKS = {
    "health_crlf": Attack(health_crlf, 600, "1a"),
    "refused_body": Attack(refused_body, 600, "1b"),
    "websocket_many_headers": Attack(websocket_many_headers, 600, "1c"),
    "trailers": Attack(trailers, 8, "2"),
    "pipelining_one": Attack(pipelining, 1, "3"),
    "pipelining_many": Attack(pipelining, 16, "3"),
    "websocket_fragments": Attack(websocket_fragments, 4, "4"),
    "websocket_pings": Attack(websocket_pings, 4, "4"),
    "websocket_burst": Attack(websocket_burst, 1, "4"),
    "slow_readers": Attack(slow_readers, 160, "5", reads=False),
    "page_takes": Attack(page_takes, 1, "6", True),
    "page_slow_video": Attack(page_slow_video, 40, "6", True, reads=False),
    "page_slow_live": Attack(page_slow_live, 100, "6", True, reads=False),
    "page_fragments": Attack(page_fragments, 4, "6", True),
    "page_pings": Attack(page_pings, 4, "6", True),
}


async def attack(name: str, fleet: Fleet, seconds: float) -> None:
    """Attacks for so many seconds; then the fleet holds the counts."""
    kind = ATTACKS[name]
    return_s = max(_SOONEST_RETURN_S, kind.connections * _RETURN_S)

    async def keep_one(number: int) -> None:
        while True:
            try:
                await _live_once(kind, fleet, number)
            except ExceptionGroup as group:  # of the tasks of one connection
                others = group.split(OSError)[1]
                if others is not None:
                    raise
            except OSError:
                pass
            await asyncio.sleep(return_s)

    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(keep_one(number) for number in range(kind.connections)))
    except TimeoutError:
        return


async def _live_once(kind: Attack, fleet: Fleet, number: int) -> None:
    """Opens one connection and runs the attack on it until the server ends it."""
    with socket.socket() as line:
        line.setblocking(False)
        if not kind.reads:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            # With the large segments of the loopback device the kernel would take megabytes from
            # the server for a client that does not read; with those of the Internet much less.
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        try:
            line.bind((fleet.source, 0))
            await asyncio.get_running_loop().sock_connect(line, (fleet.host, fleet.port))
        except OSError:
            fleet.refused += 1
            raise
        fleet.opened += 1
        try:
            await kind.life(Line(fleet, line, number))
        except (OSError, ExceptionGroup):
            fleet.closed += 1
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--source", default="127.0.0.2", help="IP address from which the attack comes"
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--niceness",
        type=int,
        default=NICENESS,
        help="niceness of the attack; 19 is the lowest priority",
    )
    options = parser.parse_args()
    _yield_to_others(options.niceness)
    fleet = Fleet(options.port, options.source)
    asyncio.run(attack(options.name, fleet, options.seconds))
    print(json.dumps(_counts(fleet)), flush=True)
    # Sockets are left to the kernel: closing thousands one by one would prolong the attack.
    os._exit(0)


def _yield_to_others(niceness: int) -> None:
    """Lowers the priority, also where Linux shares the CPU among sessions first."""
    os.nice(niceness)
    if os.getsid(0) == os.getpid():  # else the priority of others in the session would fall too
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness))


def _counts(fleet: Fleet) -> dict[str, Any]:
    names = ("opened", "refused", "closed", "sent_bytes", "received_bytes")
    return {name: getattr(fleet, name) for name in names}


if __name__ == "__main__":
    main()
