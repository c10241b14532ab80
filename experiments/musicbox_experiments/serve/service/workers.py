"""Processes that serve one application on one socket, and are replaced without a lost request.

A supervisor loads the application and forks workers, which share its memory: agents, names and
mapped files are there once. For a new run it loads another application, forks workers of it, and
lets the old ones answer what they have: they take no new connection, end each open one with its
next answer, and exit. Connections that nobody took yet wait in the socket, which stays open.
"""

import asyncio
import gc
import os
import resource
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Final

import uvicorn

from musicbox_experiments.serve.service.connections import WAITING, make_server
from musicbox_experiments.serve.service.guard import Guard
from musicbox_experiments.serve.service.metrics import count_as
from musicbox_experiments.text import say

DRAIN_SECONDS: Final = 10.0
"""How long a worker that ends keeps idle connections."""
POLL_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 0.05
_BLOCKED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """Keeps workers alive, and replaces them when what they serve changes."""

    def __init__(
        self,
        listening: socket.socket,
        load: Callable[[], Guard],
        state: Callable[[], object],
        workers: int,
        *,
        started: Callable[[], object],
    ) -> None:
        """Prepare; `run` begins.

        Args:
            listening: A bound socket.
            load: Makes the application.
            state: Differs when the application should be loaded anew; None where nobody can say.
            workers: Processes at once.
            started: Called once, when all of them are there.
        """
        self._socket, self._load, self._state, self._number = listening, load, state, workers
        self._started = started
        self._workers: dict[int, int] = {}
        self._leaving: dict[int, int] = {}
        self._asked = threading.Event()

    def run(self) -> None:
        """Serve until interrupted or terminated; then let workers finish what they have."""
        _raise_open_files()
        signal.signal(signal.SIGHUP, lambda number, frame: self._asked.set())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, none can be waited for
        seen = self._state()
        self._app = self._load()
        self._socket.listen(WAITING)
        self._fill()
        self._started()
        try:
            while True:
                self._fill()
                time.sleep(POLL_SECONDS)
                self._reap()
                state = self._state()
                if self._asked.is_set() or (state != seen and self._is_settled(state)):
                    self._asked.clear()
                    seen = state
                    self._reload()
        except KeyboardInterrupt:  # and `cli.Terminated`
            self._stop()

    def _fill(self) -> None:
        """Fork the workers that are missing; each counts in a file that no other one counts in."""
        while len(self._workers) < self._number:
            taken = {*self._workers.values(), *self._leaving.values()}
            place = next(place for place in count(1) if place not in taken)
            self._workers[_forked(self._app, self._socket, place)] = place

    def _is_settled(self, state: object) -> bool:
        """Whether a changed run is there, and is no longer being written."""
        if state is None:
            return False
        time.sleep(POLL_SECONDS)
        return self._state() == state

    def _reload(self) -> None:
        """Let new workers serve the new application, if it can be loaded, in place of the old."""
        try:
            self._app = self._load()
        except Exception as error:
            say(f"The changed run is not served, the one before still is: {error}", to_errors=True)
            if os.environ.get("MUSICBOX_DEBUG"):
                traceback.print_exception(error)
            return
        replaced = [*self._workers]
        self._leaving |= self._workers
        self._workers = {}
        self._fill()
        for pid in replaced:
            _drain(pid)
        say("The changed run is served now.")

    def _reap(self) -> None:
        """Take note of workers that ended; those that nobody asked to end are named."""
        for pid in [*self._workers, *self._leaving]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            if pid in self._workers:
                code = os.waitstatus_to_exitcode(status)
                say(f"Worker {pid} ended with {code}; another takes its place.", to_errors=True)
            for workers in (self._workers, self._leaving):
                workers.pop(pid, None)

    def _stop(self) -> None:
        """Let all workers finish what they have begun."""
        everyone = self._workers | self._leaving
        for pid in everyone:
            _drain(pid)
        for pid in everyone:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _drain(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def _forked(app: Guard, listening: socket.socket, place: int) -> int:
    """Fork a worker that counts at a place; its process id."""
    gc.unfreeze()  # what was frozen for a fork before, and is garbage now
    gc.collect()
    gc.freeze()  # else the first collection in each worker would copy most of the shared memory
    signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)  # none may arrive before a handler is there
    parent, pid = os.getpid(), os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
        return pid
    code = 1
    try:
        count_as(place)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: None)
        asyncio.run(_serve(app, listening, parent))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


async def _serve(app: Guard, listening: socket.socket, parent: int) -> None:
    """Serve until interrupted, or drained (SIGTERM), or the supervisor is gone."""
    server = make_server(app)
    asked = asyncio.Event()
    watching = asyncio.create_task(_watch(server, app, listening, asked, parent))
    try:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await asyncio.sleep(0)  # its handlers are in place, of which one drops connections
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
        await serving
    finally:
        watching.cancel()


async def _watch(
    server: uvicorn.Server,
    app: Guard,
    listening: socket.socket,
    asked: asyncio.Event,
    parent: int,
) -> None:
    """End the server after it was drained, or when its supervisor is gone."""
    while not asked.is_set() and os.getppid() == parent:
        with suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), timeout=1)
    # No `close` of asyncio's server: it drops connections that it took in the same moment.
    asyncio.get_running_loop().remove_reader(listening.fileno())
    app.draining = True
    until = time.monotonic() + DRAIN_SECONDS
    await asyncio.sleep(SETTLE_SECONDS)
    while server.server_state.connections and time.monotonic() < until:
        await asyncio.sleep(SETTLE_SECONDS)
    server.should_exit = True


def _raise_open_files() -> None:
    """A connection is an open file, of which shells often allow a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
