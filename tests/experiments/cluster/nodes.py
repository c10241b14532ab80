"""A Ray cluster of several nodes on this machine, in a network namespace that nothing else sees."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[3]
PORT, CLIENT_PORT = 6379, 10001
PATIENCE = 300
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "240",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
"""The token is of these clusters alone: others on this machine may write the usual file."""
WHY_NOT = "needs root, unshare and ip, for a network of its own"


def possible() -> bool:
    """Whether this machine lets namespaces be made."""
    if not (shutil.which("unshare") and shutil.which("nsenter") and shutil.which("ip")):
        return False
    return subprocess.run(["unshare", "--net", "--mount", "true"], check=False).returncode == 0


def environment(**more: str | None) -> dict[str, str]:
    """Variables of a command or node; None leaves one out."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "agents", ROOT / "experiments")))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    all_of_them = {**os.environ, **threads, "PYTHONPATH": paths, **RAY, **more}
    return {name: value for name, value in all_of_them.items() if value is not None}


class Cluster:
    """Nodes of one core each, and commands beside them; a context manager."""

    def __init__(
        self,
        nodes: int,
        folder: Path,
        hidden: Sequence[Path] = (),
        *,
        memory: int = 2 << 30,
        cache_room: str | None = None,
        finds_first: Path | None = None,
        variables: Mapping[str, str | None] = MappingProxyType({}),
    ) -> None:
        """Prepare a cluster.

        Args:
            nodes: How many.
            folder: Where logs of the nodes go, and their caches.
            hidden: Folders that nodes find empty; then they have caches of their own.
            memory: Bytes that each gives its tasks.
            cache_room: Size of a node's own cache, as ``mount`` takes it; no limit if left out.
            finds_first: Where nodes find Python's packages before others.
            variables: Of the nodes' environment; see `environment`.
        """
        self.number, self.folder, self.hidden = nodes, folder, hidden
        self.memory, self.cache_room, self.finds_first = memory, cache_room, finds_first
        self.variables = variables
        self.nodes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Cluster":
        # Paths of sockets are short.
        self.temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        self.network = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        try:
            until = time.monotonic() + 10
            up = ["ip", "link", "set", "lo", "up"]
            while subprocess.run([*self.inside, *up], check=False).returncode:
                assert time.monotonic() < until
                time.sleep(0.1)
            for number in range(self.number):
                self._start_node(number)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for node in self.nodes:
            end(node, signal.SIGKILL)
            node.wait()
        self.network.kill()
        self.network.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)

    @property
    def inside(self) -> list[str]:
        """Begins a command that is run in the network of the cluster."""
        same = os.readlink("/proc/self/ns/net") == os.readlink(f"/proc/{self.network.pid}/ns/net")
        return ["false"] if same else ["nsenter", f"--target={self.network.pid}", "--net"]

    def _start_node(self, number: int) -> None:
        head = f"--head --port={PORT} --ray-client-server-port={CLIENT_PORT} "
        head += f"--include-dashboard=false --temp-dir={self.temporary}"
        join = f"--address=127.0.0.1:{PORT}"
        cache = self.folder / f"cache-{number}"
        mounts = "".join(f"mount -t tmpfs tmpfs {folder}; " for folder in self.hidden)
        ray = (
            f"{sys.executable} -m ray.scripts.scripts start --block --num-cpus=1 "
            f"--memory={self.memory} --object-store-memory=80000000 {join if number else head}"
        )
        more = dict(self.variables)
        if self.hidden:
            more["MUSICBOX_CACHE"] = str(cache)
        if self.cache_room is not None:
            cache.mkdir()
            mounts += f"mount -t tmpfs -o size={self.cache_room} tmpfs {cache}; "
        if self.finds_first is not None:
            paths = self.finds_first, environment()["PYTHONPATH"]
            more["PYTHONPATH"] = os.pathsep.join(map(str, paths))
        log = (self.folder / f"node-{number}.log").open("wb")
        with log:
            node = subprocess.Popen(
                [*self.inside, "unshare", "--mount", "sh", "-c", f"{mounts}exec {ray}"],
                env=environment(**more),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.nodes.append(node)
        until = time.monotonic() + PATIENCE
        while b"Ray runtime started" not in Path(log.name).read_bytes():
            assert node.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < until
            time.sleep(0.2)

    def start(
        self, folder: Path, *arguments: str, **variables: str | None
    ) -> subprocess.Popen[str]:
        """Begin a command of MusicBox in a folder, in the nodes' `environment`, changed."""
        return subprocess.Popen(
            [*self.inside, sys.executable, "-m", "musicbox_experiments", *arguments],
            cwd=folder,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=listen_to_interrupts,
        )

    def run(self, folder: Path, *arguments: str, **variables: str | None) -> tuple[int, str]:
        """Exit code of a command and what it said on standard error; see `start`."""
        process = self.start(folder, *arguments, **variables)
        _, told = process.communicate(timeout=PATIENCE)
        return process.returncode, told

    def lose(self, number: int) -> None:
        """Kill all processes of a node."""
        end(self.nodes[number], signal.SIGKILL)


def listen_to_interrupts() -> None:
    """Undo that a shell lets what it runs in the background ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end(node: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Send a signal to a node's process and to those that it started."""
    for pid in [*descendants(node.pid), node.pid]:
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            continue


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, children) for found in (child, *descendants(child))]
