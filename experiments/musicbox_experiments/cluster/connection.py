"""The connection to a Ray cluster, or why there is none."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any, Final

from musicbox_env.errors import UserError
from musicbox_experiments.cluster.apart import OutputOfThisThread, call_apart
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
GO_ON: Final = "Start it anew; the same command goes on from what is done."
TOKEN: Final = (
    "If it asks for a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what "
    "`ray get-auth-token` prints on its head; if it asks for none, RAY_AUTH_MODE=disabled."
)


@contextmanager
def connected(where: Where) -> Iterator[None]:
    """A connection to the cluster while the block runs, and for blocks within it.

    Raises:
        UserError: Ray is missing, there is no cluster that can be used, or it was lost.
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
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        _require_room(address, nodes)
        cores = ray.cluster_resources().get("CPU", 0)
        say(f"Ray cluster {address}: nodes {len(nodes)}, cores {cores:.0f}.", to_errors=True)
        # A thread of Ray prints what befalls nodes.
        with redirect_stdout(sys.stdout and OutputOfThisThread(sys.stdout)):
            yield
    except Exception as error:
        if ray.is_initialized():
            raise
        raise UserError(f"The cluster {address} was lost ({_said(error)}). {GO_ON}") from error
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Reach a head before Ray does, which tries for long.

    Raises:
        OSError: Nothing listens there.
    """
    host, port = address.removeprefix("ray://").split(":")
    socket.create_connection((host, int(port)), timeout=KNOCK).close()


def _connect(address: str, processes: int) -> None:
    """Join the cluster, or start one here of so many cores.

    Raises:
        OSError: There is none at the address.
        ValueError: Ray does not understand the address.
        UserError: It takes another token, or runs another version of Ray or Python.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    # Else a call after the cluster was lost starts another, or seeks one for long.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
        # Ray would leave a token in the user's home, for which later clusters would ask.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        options |= {"num_cpus": processes, "include_dashboard": False}
    import ray

    for left in reversed(range(RETRIES)):
        try:
            call_apart(None if address == "local" else PATIENCE, ray.init, address, **options)
            return
        except ConnectionAbortedError:
            # Now and then the head fails to start a server for a client: ray#63202.
            if not left:
                raise
        except (RuntimeError, ray.exceptions.AuthenticationError) as error:
            if "ersion" not in str(error):
                raise UserError(_no_cluster(address, error)) from error
            raise UserError(f"The cluster {address} has other software: {_said(error)}") from error


def _no_cluster(address: str, error: Exception) -> str:
    said = _said(error) or f"nothing within {PATIENCE:.0f} s"
    return (
        f"No Ray cluster answers at --cluster {address} ({said}). Start one with `ray start "
        "--head`, name its address (port 6379 of a head; ray:// and 10001 for Ray Client), or "
        f"leave --cluster out. {TOKEN}"
    )


def _said(error: Exception) -> str:
    return " ".join(str(error).split())


def _require_room(address: str, nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuse a cluster of which no node can ever run a task; one that is to grow has no core yet.

    Raises:
        UserError: With the memory that there is.
    """
    largest = max((n.get("memory", 0) for n in nodes if n.get("CPU", 0) >= 1), default=MEMORY)
    if largest < MEMORY:
        raise UserError(
            f"A task takes {MEMORY / 2**30:.1f} GiB of memory, and the largest node of "
            f"{address} gives its tasks {largest / 2**30:.1f}. Add a larger node, or start "
            "it with `ray start --memory BYTES`."
        )
