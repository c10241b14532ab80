"""Serve the agents of a run over HTTP, with a page to look at them: songs in, songs out.

    musicbox serve runs/compare

Then http://127.0.0.1:8765/ is the page, and /docs says what programs can ask. A changed run is
served without a restart: at once when its trainings change, or on SIGHUP. See docs/serving.md.
"""

import errno
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Final

import tyro
from musicbox_agents.base import require_ranges

from musicbox_env.data.checks import FileError
from musicbox_env.data.verdicts import state_of
from musicbox_env.errors import UserError, reason
from musicbox_experiments.text import say
from musicbox_experiments.train.jobs import run_folders
from musicbox_experiments.train.monitor import BEST

MOST_WORKERS: Final = 256
OF_PORTS: Final = (errno.EADDRINUSE, errno.EACCES)
"""What the system says of a port that is taken, or is the administrator's alone."""
SHORTEST_TOKEN: Final = 16
LONGEST_TOKEN: Final = 4_096
"""Bytes of a file that holds a token."""
PACKAGES: Final = ("fastapi", "uvicorn", "prometheus_client", "rapidfuzz")
COUNTERS: Final = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class ServeConfig:
    """Options of `musicbox serve`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run made by `musicbox compare` or `musicbox train`, or a link to one: when the
    link leads elsewhere, that run is served."""
    agents: tuple[str, ...] = ()
    """Which agents of the run; all that can be served if left out."""
    seed: int | None = None
    """Which of their trainings; the one that validation liked best if left out."""
    listener: str | None = None
    """Who answers in simulated sessions, by name or file; the exact law of synthetic data if left
    out, and else replay."""
    host: str = "127.0.0.1"
    """Address to serve at; 0.0.0.0 is all of this machine's, for other machines to call."""
    port: int = 8765
    workers: int = 1
    """Processes that answer. They share agents and catalog; one uses about one core."""
    token_file: Path | None = None
    """File with a secret that requests must send, as Authorization: Bearer SECRET."""

    def __post_init__(self) -> None:
        require_ranges(self, {"port": (0, 65_535), "workers": (1, MOST_WORKERS)})


def run(config: ServeConfig) -> None:
    """Serve until interrupted."""
    serve(config)


def serve(config: ServeConfig, *, started: Callable[[str], object] | None = None) -> None:
    """Serve until interrupted.

    Args:
        config: What, and where.
        started: Called once with the address of the page, when it is there.

    Raises:
        UserError: A package is missing, the address is taken, or the token is none.
    """
    require_installed()
    if isinstance(sys.stdout, TextIOWrapper):  # a file or a journal shall have each line at once
        sys.stdout.reconfigure(line_buffering=True)
    token = None if config.token_file is None else read_token(config.token_file)
    with bound(config.host, config.port) as listening, tempfile.TemporaryDirectory() as counters:
        os.environ[COUNTERS] = counters
        # Only now: prometheus-client looks for the folder when it is imported.
        from musicbox_experiments.serve.loading import Loader
        from musicbox_experiments.serve.service.workers import Supervisor

        host = f"[{config.host}]" if ":" in config.host else config.host
        address = f"http://{host}:{listening.getsockname()[1]}/"

        def announce() -> None:
            say(f"Serving at {address}")
            if started is not None:
                started(address)

        whole = Supervisor(
            listening,
            Loader(config, token),
            lambda: state_of_run(config.run),
            config.workers,
            started=announce,
        ).run()
    say("Stopped; all requests that had begun were answered." if whole else "Stopped.")


def require_installed() -> None:
    """Refuse to go on without the packages of the extra [serve].

    Raises:
        UserError: One is missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise UserError(
            f"{', '.join(missing)} {are} not installed; serving needs the extra [serve]: "
            'pip install "musicbox-env[serve]".'
        )


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Raises:
        UserError: Another program has it, or it is none of this machine's.
    """
    listening: socket.socket | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        with ExitStack() as unless_bound:
            # With its protocol named, which `socket.create_server` leaves out: only then asyncio
            # turns off Nagle's algorithm, which holds answers back for 40 ms.
            listening = unless_bound.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            unless_bound.pop_all()
            return listening
    except (OSError, UnicodeError) as error:  # of a name that no host can have
        if listening is not None:
            listening.close()
        other = (
            "Name another --port, or stop the program that has it."
            if isinstance(error, OSError) and error.errno in OF_PORTS
            else "Name another --host, an address of this machine: 127.0.0.1, or 0.0.0.0 for all."
        )
        raise UserError(
            f"{host} port {port} is no place to serve ({reason(error)}). {other}"
        ) from None


def read_token(file: Path) -> str:
    """The secret in a file.

    Raises:
        UserError: It is too short to be one, or holds what no header can, or is no file.
    """
    if file.exists() and not (file.is_file() and file.stat().st_size <= LONGEST_TOKEN):
        raise UserError(
            f"{file} is no file of at most {LONGEST_TOKEN:,} bytes; a token is a line of text. "
            "`openssl rand -hex 32` makes one."
        )
    token = file.read_text(errors="replace").strip()
    faults = {
        f"{len(token)} characters": len(token) < SHORTEST_TOKEN,
        "blanks or line ends": any(map(str.isspace, token)),
        "letters that are not ASCII": not token.isascii(),
        "control characters": not "".join(token.split()).isprintable(),
    }
    if found := [fault for fault, is_there in faults.items() if is_there]:
        raise UserError(
            f"{file} holds {', '.join(found)}; a token has at least {SHORTEST_TOKEN} characters, "
            "of ASCII, without blanks. `openssl rand -hex 32` makes one."
        )
    return token


def state_of_run(run: Path) -> object:
    """Changes when a training of the run does, or the agent it saved; None while one is missing."""
    try:
        files = [
            f for inner in run_folders(run) for f in inner.glob("agents/*/seed-*/training.json")
        ]
        return {
            str(file.resolve()): state_of([file], filter(Path.is_dir, [file.parent / BEST])).digest
            for file in files
        }
    except (OSError, FileError):
        return None
