"""The environment's keyword values, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from musicbox_env.data.dataset import DEFAULT_EMBEDDING
from musicbox_env.listeners.leaving import require_leaving
from musicbox_env.retrieval.search import RETRIEVALS
from musicbox_env.rewards import RewardConfig
from musicbox_env.schema import brief, require_known, split_codes, suggest

ACTIONS: Final = ("proto", "proto_list", "slate")
OBSERVATIONS: Final = ("embedding", "flat", "ids")
CANDIDATES: Final = ("catalog", "session")
MOST_SONGS: Final = 1_000_000
"""Of a slate, a history or a horizon: room is made for all of them."""


def _require_kind(name: str, value: Any, kind: str) -> None:
    """Refuse a value of another type than declared, and text that no file can be called."""
    accepted: type | None = {"str": str, "str | None": str, "bool": bool}.get(kind)
    if accepted is None or (value is None and kind.endswith("None")):
        return
    if not isinstance(value, accepted):
        raise ValueError(f"{name} is {brief(value)}; expected a {accepted.__name__}.")
    if isinstance(value, str):
        try:
            named = b"\0" not in os.fsencode(value)
        except UnicodeEncodeError:
            named = False
        if not named:
            raise ValueError(f"{name} is {brief(value)}; expected text without null characters.")


@dataclass(frozen=True)
class SessionConfig:
    """Keyword values of the environment; `env.MusicSessionEnv` explains each of them."""

    data: str | None = None
    split: str = "train"
    listener: str | None = None
    action: str = "proto"
    observation: str = "embedding"
    candidates: str | None = None
    slate_size: int = 3
    history_length: int = 10
    repeats: bool = False
    horizon: int | None = None
    leaving: str | None = None
    reward: RewardConfig = field(default_factory=RewardConfig)
    embedding: str = DEFAULT_EMBEDDING
    retrieval: str = "auto"

    def __post_init__(self) -> None:
        for option in fields(self):
            _require_kind(option.name, getattr(self, option.name), str(option.type))
        split_codes(self.split)
        require_known("action", self.action, ACTIONS)
        require_known("observation", self.observation, OBSERVATIONS)
        if self.candidates is not None:
            require_known("candidates", self.candidates, CANDIDATES)
        require_known("retrieval", self.retrieval, RETRIEVALS)
        require_leaving(self.leaving)
        for name in ("slate_size", "history_length", "horizon"):
            value = getattr(self, name)
            if value is None and name == "horizon":
                continue
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not 1 <= value <= MOST_SONGS:
                raise ValueError(
                    f"{name} is {brief(value)}; it must be a whole number of 1 or more, and at "
                    f"most {MOST_SONGS:,}."
                )
        if self.horizon is not None and self.candidates == "session":
            raise ValueError(
                "horizon and candidates='session' exclude each other: a logged session has only "
                "so many plays left. Leave horizon out, or take candidates='catalog'."
            )

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> SessionConfig:
        """Build from `gymnasium.make` keywords.

        Raises:
            TypeError: A keyword is unknown; in Python's own words, which libraries look for, and
                with a suggestion.
            ValueError: A value that cannot be.
        """
        known = [f.name for f in fields(cls)]
        for name in keywords:
            if name not in known:
                raise TypeError(
                    f"MusicSessionEnv.__init__() got an unexpected keyword argument {name!r}; "
                    f"{suggest(name, known)}"
                )
        values = dict(keywords)
        if not isinstance(values.get("reward"), RewardConfig):
            values["reward"] = RewardConfig.from_mapping(values.get("reward"))
        for name in ("data", "leaving", "listener"):
            if isinstance(values.get(name), os.PathLike):
                values[name] = os.fspath(values[name])
        return cls(**values)

    def completed(self, *, has_law: bool) -> SessionConfig:
        """The same with a listener and candidates chosen where they are None.

        The listener is the exact law of the data, where they have one, or else replay. Replay
        answers from the log, so that its candidates are the plays that each session still holds;
        with a horizon, for which no log has enough plays, and for other listeners they are the
        catalog.

        Args:
            has_law: Whether the dataset was made by a law that is known.
        """
        listener = self.listener or ("ground_truth" if has_law else "replay")
        labels = listener == "replay" and self.horizon is None
        candidates = self.candidates or ("session" if labels else "catalog")
        return replace(self, listener=listener, candidates=candidates)

    def keywords(self) -> dict[str, Any]:
        """JSON-able keywords that give this configuration again."""
        return asdict(self)
