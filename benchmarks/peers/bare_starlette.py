"""The yardstick of benchmarks/serving.py: uvicorn, Starlette and the policy, nothing else."""

import sys

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from rlcar.registry import Registry
from serve.policy.policy import load_policy

POLICY = load_policy(Registry(sys.argv[1]))
FIRST = np.ones(1, bool)


async def act(request: Request) -> JSONResponse:
    body = await request.json()
    seen = np.array([body["observation"]], np.float32)
    action, _ = POLICY.act(POLICY.initial_state(1), seen, FIRST)
    return JSONResponse({"action": action[0].tolist()})


async def drive(socket: WebSocket) -> None:
    await socket.accept()
    state = POLICY.initial_state(1)
    try:
        while True:
            seen = np.frombuffer(await socket.receive_bytes(), np.float32, 6, 12)[None]
            action, state = POLICY.act(state, seen, ~FIRST)
            await socket.send_bytes(action.tobytes())
    except WebSocketDisconnect:
        return


app = Starlette(
    routes=[Route("/v1/act", act, methods=["POST"]), WebSocketRoute("/v1/drive", drive)]
)
uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="error")
