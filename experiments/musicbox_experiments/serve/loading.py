"""A run as an application that is ready: opened, and its kernels compiled."""

import os
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import numpy as np

from musicbox_env.errors import UserError
from musicbox_experiments.serve.engine import Engine
from musicbox_experiments.serve.recommend import context_of
from musicbox_experiments.serve.recommender import AT_ONCE, LiveSession
from musicbox_experiments.serve.serve import ServeConfig
from musicbox_experiments.serve.service.app import create_app
from musicbox_experiments.serve.service.batching import one_thread
from musicbox_experiments.serve.service.guard import LOOPBACK, Guard
from musicbox_experiments.serve.service.look import Looker
from musicbox_experiments.serve.service.schemas import LookRequest
from musicbox_experiments.text import say


class Loader:
    """Makes the application that a configuration asks for, as often as its run changes."""

    def __init__(self, config: ServeConfig, token: str | None) -> None:
        """Take what `musicbox serve` was given."""
        self._config, self._token = config, token
        self._served: set[str] = set()

    def __call__(self) -> Guard:
        """The application, and what it is, printed.

        Raises:
            UserError: An agent that was served before lies in the changed run and cannot be opened.
        """
        config = self._config
        run = Path(os.path.realpath(config.run))  # once: the link may be moved while it is opened
        one_thread()
        say(f"Opening {config.run}. What is not compiled yet is compiled now, for a minute or two.")
        engine = Engine.open(run, config.agents, config.seed)
        if lost := sorted(self._served.intersection(engine.left_out)):
            raise UserError(f"{', '.join(lost)} cannot be served, see above.")
        looker = Looker(engine, config.listener)
        warm_up(engine, looker)
        address = address_of(config.host)
        local = (getattr(address, "ipv4_mapped", None) or address).is_loopback
        say(f"Loaded {config.run}: agents {', '.join(engine.agents)}; {len(engine.songs):,} songs.")
        if not local and self._token is None:
            say("Anyone who reaches this address may ask; --token-file demands a secret.")
        hosts = (*LOOPBACK, config.host, str(address)) if local else None
        self._served = {*engine.agents}
        return create_app(engine, looker, token=self._token, hosts=hosts)


def address_of(host: str) -> IPv4Address | IPv6Address:
    """The address at which a host is served, however it is spelled."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return ip_address(found[0][4][0])


def warm_up(engine: Engine, looker: Looker) -> None:
    """Ask every agent once, alone and in a batch: what is made on first use is made now."""
    nothing = LiveSession(np.zeros(1, np.int64), np.zeros(1, np.int8), context_of())
    for agent in engine.agents.values():
        for number in (1, AT_ONCE):
            agent.slates([nothing] * number)
        with suppress(UserError):
            agent.playlist(nothing, 1)
    assert len(engine.durations)
    looker.look(LookRequest(listener=0, played=[engine.songs.id(0)]))
    engine.songs.search(engine.songs.name(0), 1)
