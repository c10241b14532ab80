"""The warning of answers that say almost nothing about songs: replay over the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from warnings import warn

from musicbox_env.simulator.config import SessionConfig

_EXPECTED: ContextVar[bool] = ContextVar("imputed_answers_expected", default=False)


class ImputedAnswersWarning(UserWarning):
    """Replay answers for songs that sessions did not play; over the catalog most are such."""


def warn_of_imputed_answers(config: SessionConfig) -> None:
    """Warn, once a process, where replay answers over the catalog."""
    over_catalog = config.listener == "replay" and config.candidates == "catalog"
    if over_catalog and not _EXPECTED.get():
        _warn_once()


@contextmanager
def imputed_answers_expected() -> Iterator[None]:
    """Make environments without that warning: for callers that say themselves what replay is."""
    token = _EXPECTED.set(True)
    try:
        yield
    finally:
        _EXPECTED.reset(token)


@cache
def _warn_once() -> None:
    warn(
        "listener='replay' answers a song that the session did not play with the level of one of "
        "its own plays, which says almost nothing about the song: over the catalog it cannot rank "
        "recommenders. Take candidates='session', where every reward is a logged label, or "
        "another listener.",
        ImputedAnswersWarning,
        stacklevel=4,
    )
