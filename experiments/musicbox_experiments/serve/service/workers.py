"""Processes that serve one application on one socket, and are replaced without a lost request.

A supervisor loads the application and forks workers, which share its memory: agents, names and
mapped files are there once. For a new run it loads another application, forks workers of it, and
lets the old ones answer what they have: they take no new connection, end each open one with its
next answer, and exit. Connections that nobody took yet wait in the socket, which stays open.
"""

import asyncio
import errno
import gc
import math
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
from typing import Any, Final

import uvicorn

from musicbox_experiments.serve.service.connections import STOP_SECONDS, WAITING, make_server
from musicbox_experiments.serve.service.guard import Guard
from musicbox_experiments.serve.service.metrics import count_as
from musicbox_experiments.text import say

DRAIN_SECONDS: Final = 10.0
"""How long a worker that ends keeps idle connections."""
LAST_SECONDS: Final = DRAIN_SECONDS + STOP_SECONDS + 5.0
"""After how long a worker that does not end is killed: it hangs, or somebody stopped it."""
POLL_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 0.05
TAKEN_AT_ONCE: Final = 1
"""Connections: where no more files may be open, asyncio fails as often at once."""
TELL_SECONDS: Final = 60.0
"""How often it is told that further connections wait."""
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

    def run(self) -> bool:
        """Serve until interrupted or terminated; then let workers finish what they have.

        Returns:
            Whether all of them did.
        """
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
            return self._stop()

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

    def _stop(self) -> bool:
        """Let workers finish what they have begun; kill those that do not, or if asked twice."""
        everyone = [*self._workers, *self._leaving]
        for pid in everyone:
            _drain(pid)
        alive, until = everyone, time.monotonic() + LAST_SECONDS
        with suppress(KeyboardInterrupt):
            while (alive := [pid for pid in alive if _lives(pid)]) and time.monotonic() < until:
                time.sleep(SETTLE_SECONDS)
        for pid in alive:
            say(f"Worker {pid} does not end, and is killed.", to_errors=True)
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        return not alive


def _drain(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def _lives(pid: int) -> bool:
    """Whether a worker has not ended yet."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    return False


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
    server = make_server(app, backlog=TAKEN_AT_ONCE)
    asyncio.get_running_loop().set_exception_handler(_noting())
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


def _noting() -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """What is done with errors of the event loop: connections beyond the limit are told rarely.

    Without, asyncio writes a trace each second.
    """
    told = -math.inf

    def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal told
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
            loop.default_exception_handler(context)
        elif time.monotonic() > told + TELL_SECONDS:
            told = time.monotonic()
            say("Further connections wait: no more files may be open (ulimit -n).", to_errors=True)

    return note


async def _watch(
    server: uvicorn.Server,
    app: Guard,
    listening: socket.socket,
    asked: asyncio.Event,
    parent: int,
) -> None:
    """End the server after it was drained, or when its supervisor is gone."""
    while not server.started:
        await asyncio.sleep(0)
    listening.listen(WAITING)  # asyncio lets no more wait than it takes at once
    while not asked.is_set() and os.getppid() == parent:
        with suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), timeout=1)
    # No `close` of asyncio's server: it drops connections that it took in the same moment.
    # Again and again: where no more files may be open, asyncio takes to listening each second.
    loop, until = asyncio.get_running_loop(), time.monotonic() + DRAIN_SECONDS
    app.draining, drained = True, False
    while not drained and time.monotonic() < until:
        loop.remove_reader(listening.fileno())
        await asyncio.sleep(SETTLE_SECONDS)
        drained = not server.server_state.connections
    server.should_exit = True


def _raise_open_files() -> None:
    """A connection is an open file, of which shells often allow a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
