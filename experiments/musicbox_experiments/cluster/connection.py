"""The connection to a Ray cluster: which one, with which token, or why there is none."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from musicbox_env.errors import UserError
from musicbox_experiments.cluster.tasks import Where
from musicbox_experiments.text import say

MEMORY: Final = 1 << 30
"""Bytes of memory that a task takes; a training takes about 0.6 GiB."""
RETRIES: Final = 3
"""Times that is tried again what was lost: a task whose node or process is, and a connection."""
KNOCK: Final = 10.0
"""Seconds in which what listens at an address must take a connection."""
PATIENCE: Final = 90.0
"""Seconds in which a cluster must take this process as a driver."""
ASKED: Final = {True: "RayletDriver/ClusterInfo", False: "NodeInfoGcsService/GetClusterId"}
"""By whether Ray Client is used: a call by which a head shows whether it takes a token."""
REFUSED: Final = "UNAUTHENTICATED"
MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
MEND: Final = f"set {TOKEN} to what `ray get-auth-token` prints on the head"


@contextmanager
def connected(where: Where) -> Iterator[None]:
    """A connection to the cluster while the block runs, and for blocks within it.

    Raises:
        UserError: Ray is missing, or there is no cluster that can be used.
    """
    if find_spec("ray") is None:
        raise UserError(
            '--cluster needs Ray, which is not installed: pip install "musicbox-env[cluster]".'
        )
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    address = str(where.cluster)
    try:
        if ":" in address:
            _knock(address)
        _connect(address, where.processes)
    except (OSError, ValueError) as error:
        raise UserError(_no_cluster(address, error)) from error
    import ray

    try:
        _require_answers(address)
        _require_room(address)
        nodes = sum(node["Alive"] for node in ray.nodes())
        cores = ray.cluster_resources().get("CPU", 0)
        say(f"Ray cluster {address}: nodes {nodes}, cores {cores:.0f}.", to_errors=True)
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Reach a head before Ray does, which tries for long, and let it show a token if one is asked.

    Raises:
        OSError: Nothing listens there.
        UserError: The head does not take this machine's token.
    """
    host, port = address.removeprefix("ray://").split(":")
    socket.create_connection((host, int(port)), timeout=KNOCK).close()
    if _takes_token(address):
        os.environ[MODE] = "token"  # Ray reads it when it is imported; `auto` needs no word


def _connect(address: str, processes: int) -> None:
    """Join the cluster, or start one here of so many cores.

    Raises:
        OSError: There is none at the address.
        ValueError: Ray does not understand the address.
        UserError: It asks for a token, or runs another version of Ray or Python.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
        # Ray would leave a token in the user's home, for which later clusters would ask.
        os.environ.setdefault(TOKEN, secrets.token_hex(32))
        options |= {"num_cpus": processes, "include_dashboard": False}
    import ray

    for left in reversed(range(RETRIES)):
        try:
            _apart(None if address == "local" else PATIENCE, ray.init, address, **options)
            return
        except ConnectionAbortedError:
            # Now and then the head fails to start a server for a client: ray#63202.
            if not left:
                raise
        except ray.exceptions.AuthenticationError as error:
            raise UserError(f"{MODE} is token, and this machine has none: {MEND}.") from error
        except RuntimeError as error:
            if "ersion" not in str(error):
                raise
            said = " ".join(str(error).split())
            raise UserError(f"The cluster at {address} has other software: {said}") from error


def _no_cluster(address: str, error: Exception) -> str:
    """What to say where Ray found none.

    Raises:
        UserError: Ray found one, and another token.
    """
    said = " ".join(str(error).split()) or f"nothing within {PATIENCE:.0f} s"
    if (named := re.search(r"Ray cluster at (\S+:\d+)", said)) is not None:  # that of `auto`
        _takes_token(named[1])
    if ":" in address and _answer(address) == "UNIMPLEMENTED":
        said += "; another service listens there: a head has port 6379, Ray Client ray:// and 10001"
    return (
        f"No Ray cluster answers at --cluster {address} ({said}). Start one with `ray start "
        "--head`, name its address, or leave --cluster out."
    )


def _apart(seconds: float | None, work: Callable[..., object], *given: Any, **options: Any) -> None:
    """Call Ray in another thread, and leave it there where it takes too long or a signal comes.

    In the main thread Ray holds signals back, and sets handlers of its own.

    Raises:
        TimeoutError: It took longer.
    """
    done: Future[object] = Future()

    def call() -> None:
        try:
            done.set_result(work(*given, **options))
        except BaseException as error:
            done.set_exception(error)
        threading.Event().wait()  # processes that Ray starts end with the thread that started them

    threading.Thread(target=call, daemon=True).start()
    done.result(seconds)


def _takes_token(address: str) -> bool:
    """Whether a head asks for a token and takes this machine's.

    Raises:
        UserError: It asks for another.
    """
    if _answer(address) != REFUSED:
        return False
    token, place = _token()
    if not token or _answer(address, token) == REFUSED:
        has = f"another than the one in {place}" if token else "and this machine has none"
        raise UserError(f"The Ray cluster at {address} asks for a token, {has}: {MEND}.")
    return True


def _require_answers(address: str) -> None:
    """Refuse to show a token to a cluster that has none: what its nodes send would be refused here.

    Raises:
        UserError: With the way out.
    """
    import ray

    if os.environ.get(MODE) != "token" or address.startswith("ray://"):
        return
    if _answer(ray.get_runtime_context().gcs_address) == "OK":
        raise UserError(
            f"The Ray cluster {address} has no token, and this machine has one in {_token()[1]}: "
            f"set {MODE}=disabled, or start the cluster with that token."
        )


def _token() -> tuple[str, str]:
    """This machine's token, and the variable or file that it is in; empty if it has none."""
    if token := os.environ.get(TOKEN):
        return token, TOKEN
    file = Path(os.environ.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token")
    return (file.read_text().strip(), str(file)) if file.is_file() else ("", "")


def _answer(address: str, token: str = "") -> str:
    """How a head takes a call with a token, or without: the name of gRPC's status."""
    import grpc

    call = f"/ray.rpc.{ASKED[address.startswith('ray://')]}"
    shown = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(address.removeprefix("ray://")) as channel:
        try:
            channel.unary_unary(call)(b"", timeout=KNOCK, metadata=shown)
        except grpc.RpcError as error:
            return str(error.code().name) if isinstance(error, grpc.Call) else "UNKNOWN"
    return "OK"


def _require_room(address: str) -> None:
    """Refuse a cluster of which no node can ever run a task; one that is to grow has no core yet.

    Raises:
        UserError: With the memory that there is.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max((n.get("memory", 0) for n in nodes if n.get("CPU", 0) >= 1), default=MEMORY)
    if largest < MEMORY:
        raise UserError(
            f"A task takes {MEMORY / 2**30:.1f} GiB of memory, and the largest node of "
            f"{address} gives its tasks {largest / 2**30:.1f}. Add a larger node, or start "
            "it with `ray start --memory BYTES`."
        )
