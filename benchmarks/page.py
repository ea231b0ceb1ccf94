"""What share of a core does the live page cost with three viewers, at 60 frames a second?

    python benchmarks/page.py [seconds, default 20]

`rlcar watch` shows a short nano run, whose policy drives and whose world model dreams, to three
WebSocket clients in another process. The peer, in the same run: bare Starlette under the same
uvicorn that sends three clients as many bytes as often, and does nothing else.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import websockets
from header import print_header
from processes import program

VIEWERS, FRAMES_PER_S, FRAME_BYTES = 3, 60, 72
_RLCAR = str(Path(sys.executable).with_name("rlcar"))
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PEER = f"""
import asyncio, sys, time, uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

async def send(socket):
    await socket.accept()
    due_s = time.monotonic()
    while True:
        await socket.send_bytes(bytes({FRAME_BYTES}))
        due_s = max(due_s + 1 / {FRAMES_PER_S}, time.monotonic() - 0.25)
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))

config = uvicorn.Config(
    Starlette(routes=[WebSocketRoute("/live", send)]), port=int(sys.argv[1]), log_level="critical",
    ws="websockets-sansio", ws_per_message_deflate=False,
)
uvicorn.Server(config).run()
"""


@contextlib.contextmanager
def server(command: list[str], port: int) -> Iterator[int]:
    """Starts a server, waits until it answers, and yields its process id."""
    with program(command, stderr=subprocess.DEVNULL) as process:
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/health")
                break
            time.sleep(0.3)
        yield process.pid


def cpu_s(pid: int) -> float:
    """The CPU-seconds that a process has taken."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS_PER_S


async def watch(port: int, pid: int, seconds: float) -> tuple[float, float]:
    """Returns the share of a core, and the frames a second that each viewer got."""
    url, frames = f"ws://127.0.0.1:{port}/live", 0
    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(websockets.connect(url, compression=None))
            for _ in range(VIEWERS)
        ]

        async def count(socket: websockets.ClientConnection) -> None:
            nonlocal frames
            async for message in socket:
                frames += isinstance(message, bytes) and message[0] in (0, 1)

        counting = [asyncio.create_task(count(socket)) for socket in sockets]
        await asyncio.sleep(3)  # the first seconds follow the run and compile what is left
        before, frames, then_s = cpu_s(pid), 0, time.monotonic()
        await asyncio.sleep(seconds)
        took_s = time.monotonic() - then_s
        share, per_s = (cpu_s(pid) - before) / took_s, frames / VIEWERS / took_s
        for task in counting:
            task.cancel()
    return share, per_s


def main(seconds: float) -> None:
    print_header("starlette", "uvicorn", "websockets", "jax")
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/nano"
        train = [_RLCAR, "train", "--local", "--runs", folder, "--name", "nano"]
        train += ["--set", "training.env_steps=1024", "--set", "training.checkpoint_every_s=5"]
        subprocess.run(train, check=True, capture_output=True)
        with server([_RLCAR, "watch", run, "--port", "8765"], 8765) as pid:
            time.sleep(5)  # until the world model has dreamt once
            httpx.post("http://127.0.0.1:8765/start").raise_for_status()
            share, per_s = asyncio.run(watch(8765, pid, seconds))
    with server([sys.executable, "-c", _PEER, "8766"], 8766) as pid:
        peer_share, peer_per_s = asyncio.run(watch(8766, pid, seconds))
    print(f"peer: {peer_per_s:.1f} frames/s to each viewer")
    print(f"figure page_frames_per_s={per_s:.1f}")
    print(f"figure page_cpu_share_3_viewers={share:.3f}")
    print(f"figure bare_stream_cpu_share_3_viewers={peer_share:.3f}")
    print(f"figure page_cpu_over_bare_stream={share / peer_share:.2f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
