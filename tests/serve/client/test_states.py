"""The SDK always answers in time: forked, closed, without its thread, from many threads at once."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serve.client.client import AsyncDriveClient, DriveClient, ServerError
from tests.serve.served import publish, serving
from tests.support.waiting import wait_until

SEEN = np.array([0.5, 0.6, 0.9, 0.5, 0.4, 0.2], np.float32)
BRAKE = [[0.0, -1.0]]
PATIENCE_S = 60.0  # for programs that must end


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry") / "models"
    publish(folder)
    with serving(folder) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
def silent():
    """The address of a server that accepts connections and does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _run(program, *arguments):
    """Runs a separate program, in which forking is safe; returns its output."""
    head = "import os, sys, time\nfrom serve.client.client import DriveClient, AsyncDriveClient\n"
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", f"{head}SEEN = [0.5] * 6\n{program}", *arguments]
    with subprocess.Popen(
        command,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with its forked children
            raise
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return output.split()


FORK = """
url, way = sys.argv[1], sys.argv[2]
car = DriveClient(url, websocket=way == "socket", timeout_ms=10_000)
first = [car.act(SEEN, is_first=True).source for _ in range(2)]
session = car.session
child = os.fork()
if not child:
    sources = [car.act(SEEN).source for _ in range(3)]
    print(*sources, car.session != session, flush=True)
    car.close()
    print(car.act(SEEN).error == "this client is closed", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(*first, *[car.act(SEEN).source for _ in range(3)], car.session == session)
car.close()
"""


@pytest.mark.parametrize("way", ["http", "socket"])
def test_a_forked_process_drives_and_so_does_its_parent(url, way):
    assert _run(FORK, url, way) == ["model"] * 3 + ["True", "True"] + ["model"] * 5 + ["True"]


@pytest.mark.parametrize("way", ["http", "socket"])
def test_a_forked_process_waits_no_longer_than_the_timeout(silent, way):
    assert _run(FORK.replace("10_000", "50"), silent, way)[:4] == ["fallback"] * 3 + ["True"]


def test_asking_imports_nothing(url):
    """A process forked during another thread's import deadlocks at its own next import."""
    program = """
url = sys.argv[1].replace("127.0.0.1", "localhost")
cars = [DriveClient(where, websocket=way, timeout_ms=10_000)
        for where in (url, "https://localhost:9") for way in (False, True)]
before = set(sys.modules)
for car in cars:
    reply = car.act(SEEN)
    print(reply.source)
    car.close()
print(*sorted(set(sys.modules) - before))
"""
    assert _run(program, url) == ["model", "model", "fallback", "fallback"]


def test_a_fork_while_another_thread_acts_drives(url):
    program = """
import threading
car = DriveClient(sys.argv[1], timeout_ms=10_000)
is_over = False
def drive():
    while not is_over:
        car.act(SEEN)
threads = [threading.Thread(target=drive) for _ in range(4)]
for thread in threads:
    thread.start()
children = []
for _ in range(10):
    child = os.fork()
    if not child:
        os._exit(0 if car.act(SEEN).source == "model" else 1)
    children.append(child)
statuses = [os.waitpid(child, 0)[1] for child in children]
is_over = True
for thread in threads:
    thread.join()
print(*statuses, car.act(SEEN).source)
"""
    assert _run(program, url) == ["0"] * 10 + ["model"]


def test_multiprocessing_forks_a_client_that_drives(url):
    program = """
import multiprocessing
car = DriveClient(sys.argv[1], websocket=True, timeout_ms=10_000)
print(car.act(SEEN).source)
def drive(queue):
    queue.put(car.act(SEEN).source)
context = multiprocessing.get_context("fork")
queue = context.Queue()
processes = [context.Process(target=drive, args=(queue,)) for _ in range(3)]
for process in processes:
    process.start()
print(*[queue.get() for _ in processes])
for process in processes:
    process.join()
print(*[process.exitcode for process in processes], car.act(SEEN).source)
"""
    assert _run(program, url) == ["model"] * 4 + ["0"] * 3 + ["model"]


def test_a_name_that_was_chosen_goes_on_in_a_forked_process(url):
    program = """
car = DriveClient(sys.argv[1], session="car-7", timeout_ms=10_000)
print(car.act(SEEN, is_first=True).source)
child = os.fork()
if not child:
    os._exit(0 if (car.session, car.act(SEEN).source) == ("car-7", "model") else 1)
print(os.waitpid(child, 0)[1])
"""
    assert _run(program, url) == ["model", "0"]


def test_an_async_client_drives_in_a_forked_process(url):
    program = """
import asyncio
car = AsyncDriveClient(sys.argv[1], websocket=True, timeout_ms=10_000)
async def drive():
    return (await car.act(SEEN)).source
print(asyncio.run(drive()), flush=True)
child = os.fork()
if not child:
    os._exit(0 if asyncio.run(drive()) == "model" else 1)
print(os.waitpid(child, 0)[1], asyncio.run(drive()))
"""
    assert _run(program, url) == ["model", "0", "model"]


ENDING = """
import atexit, threading
cars = [DriveClient(url, timeout_ms=200) for url in sys.argv[2:]]
cars += [DriveClient(url, websocket=True, timeout_ms=200) for url in sys.argv[2:]]
def drive(when):
    for car in cars:
        assert car.act(SEEN).action.shape == (1, 2)
    late = DriveClient(sys.argv[2], timeout_ms=200)
    assert late.act(SEEN).action.shape == (1, 2)
    print(when, flush=True)
class Last:
    def __del__(self, cars=cars, write=os.write):
        for car in cars:
            assert car.act([0.5] * 6).action.shape == (1, 2)
        write(1, b"deleted")
if sys.argv[1] == "threads":
    threading._register_atexit(drive, "threads")
else:
    atexit.register(drive, "exit")
    last = Last()
"""


@pytest.mark.parametrize(
    ("when", "told"), [("threads", ["threads"]), ("exit", ["exit", "deleted"])]
)
def test_while_the_interpreter_ends_there_is_an_action(url, silent, when, told):
    assert _run(ENDING, when, url, silent) == told


def test_after_close_it_brakes_and_says_why(url):
    car = DriveClient(url)
    assert car.act(SEEN).source in ("model", "fallback")
    threads = threading.active_count()
    car.close()
    car.close()
    for _ in range(5):
        reply = car.act(SEEN)
        assert reply.error == "this client is closed"
    assert reply.action.tolist() == BRAKE
    assert threading.active_count() < threads
    with pytest.raises(ServerError, match="closed"):
        car.check()


def test_an_async_client_brakes_after_close(url):
    import asyncio

    async def drive():
        car = AsyncDriveClient(url, websocket=True, timeout_ms=10_000)
        first = await car.act(SEEN)
        await car.close()
        with pytest.raises(ServerError, match="closed"):
            await car.check()
        return first, await car.act(SEEN)

    first, after = asyncio.run(drive())
    assert (first.source, after.source, after.error) == ("model", "hold", "this client is closed")


@pytest.mark.parametrize("websocket", [False, True])
def test_many_threads_share_a_client(url, websocket):
    with (
        DriveClient(url, websocket=websocket, timeout_ms=30_000) as car,
        ThreadPoolExecutor(8) as threads,
    ):
        replies = list(threads.map(lambda _: car.act(SEEN), range(200)))
        assert {reply.source for reply in replies} == {"model"}
        assert car.counts.sources == {"model": 200}


@pytest.mark.parametrize("websocket", [False, True])
def test_many_threads_wait_for_a_silent_server_at_the_same_time(silent, websocket):
    with (
        DriveClient(silent, websocket=websocket, timeout_ms=200) as car,
        ThreadPoolExecutor(32) as threads,
    ):
        began_s = time.perf_counter()
        replies = list(threads.map(lambda _: car.act(SEEN), range(32)))
        took_s = time.perf_counter() - began_s
    assert {reply.source for reply in replies} == {"fallback"}
    assert took_s < 32 * 0.2  # and not one after another


def test_close_lets_those_go_who_wait(silent):
    car = DriveClient(silent, timeout_ms=60_000)
    replies = []
    waiting = threading.Thread(target=lambda: replies.append(car.act(SEEN)))
    waiting.start()
    wait_until(lambda: bool(car._client._connections))
    car.close()
    waiting.join(30.0)
    assert [reply.source for reply in replies] == ["fallback"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a killed thread closes nothing
@pytest.mark.parametrize("websocket", [False, True])
def test_a_thread_that_has_died_is_replaced(url, websocket):
    _act_with_a_dead_thread(url, websocket)
    gc.collect()  # while this test's filter applies


def _act_with_a_dead_thread(url, websocket):
    with DriveClient(url, websocket=websocket, timeout_ms=10_000) as car:
        assert car.act(SEEN).source == "model"
        dead = car._thread
        dead._loop.call_soon_threadsafe(dead._loop.stop)
        wait_until(lambda: not dead.is_usable)
        assert car.act(SEEN).source == "model"
        assert car._thread is not dead


def test_a_thread_that_hangs_costs_no_more_than_the_timeout(url):
    with DriveClient(url, timeout_ms=100) as car:
        end = threading.Event()
        car._thread._loop.call_soon_threadsafe(end.wait)
        with contextlib.ExitStack() as stack:
            stack.callback(end.set)
            reply = car.act(SEEN)
        assert reply.source == "fallback"
        assert reply.error == "no answer in time"
        assert reply.latency_ms < 30_000.0
