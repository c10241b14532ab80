"""What the DDPG agent does otherwise than DDPG and LIRD, as settings that can be taken back.

The numbers are those of the page of `musicbox_agents.ddpg.agent`. `published` is the algorithm as
LIRD and DDPG
have it, as far as settings reach; `musicbox ablate` takes each departure away from the agent's
defaults, and adds each to the published algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from musicbox_agents.ddpg.agent import DDPGSettings

from musicbox_env.data.dataset import EMBEDDINGS

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Departure:
    """One option of the agent.

    Attributes:
        number: On the page of `musicbox_agents.ddpg.agent`.
        name: For labels and ``--only``.
        about: What it is.
        published: The settings concerned, as LIRD or DDPG would have them.
        taken: The same with the departure: the agent's defaults if they have it.
        needs: Settings without which it has nothing to act on: they are in force on both sides of
            the comparison.
        in_defaults: Whether the agent has it by default.
    """

    number: int
    name: str
    about: str
    published: Values
    taken: Values
    needs: Values
    in_defaults: bool


def departures(
    default: DDPGSettings | None = None, *, embedding: str = EMBEDDINGS[-1]
) -> tuple[Departure, ...]:
    """All departures that are settings, in the order of the page.

    Args:
        default: What the agent does; None is its defaults.
        embedding: The dataset's embedding that the agent would take, without the rate.
    """
    default = default or DDPGSettings()
    future = {"gamma": 0.9}
    known_quality = {
        "embedding": None,
        "quality": "learned",
        "rerank": default.rerank or default.slate_size,
        "points": 1,
    }

    def option(
        number: int,
        name: str,
        about: str,
        published: Values,
        suggested: Values,
        needs: Values | None = None,
    ) -> Departure:
        """``suggested`` is the departure where the defaults do not have it."""
        own = {setting: getattr(default, setting) for setting in published}
        has_it = own != published
        return Departure(
            number, name, about, published, own if has_it else suggested, needs or {}, has_it
        )

    return (
        option(
            1, "unit-norm", "points of norm 1, not tanh", {"squash": "tanh"}, {"squash": "unit"}
        ),
        option(
            2,
            "played-songs",
            "the critic learns of the songs played, not of the point",
            {"critic_sees": "proto"},
            {"critic_sees": "songs"},
        ),
        option(
            3,
            "rate",
            "one more dimension of the space: the songs' rate",
            {"embedding": embedding},
            {"embedding": None},
        ),
        option(
            4,
            "statistics",
            "sessions are read by plain statistics alone, not by a GRU beside them",
            {"encoder": "recurrent"},
            {"encoder": "pooled"},
        ),
        option(
            5,
            "start",
            "the actor starts as the heuristic, not at random",
            {"start": "random"},
            {"start": "heuristic"},
        ),
        option(
            6,
            "log",
            "logged transitions in every batch, and before the first slate",
            {"log_share": 0.0, "warmup_updates": 0},
            {"log_share": 0.5, "warmup_updates": 1_000},
        ),
        option(7, "short-sight", "no value of later slates", future, {"gamma": 0.0}),
        option(
            8,
            "whole-slates",
            "slates heard in part are scaled to whole ones",
            {"whole_slates": False},
            {"whole_slates": True},
        ),
        option(
            9,
            "no-noise",
            "no exploration on the actor's output",
            {"noise": default.noise},
            {"noise": 0.0},
        ),
        option(
            10,
            "neighbours",
            "the actor climbs at the nearest songs, not at its point",
            {"neighbours": 0},
            {"neighbours": 10},
        ),
        option(
            11,
            "cloning",
            "the actor is held near songs kept in the log",
            {"cloning_weight": 0.0},
            {"cloning_weight": 0.3},
        ),
        option(
            12,
            "alignment",
            "the point is pulled towards the songs it retrieves",
            {"alignment_weight": 0.0},
            {"alignment_weight": 0.3},
        ),
        option(
            13,
            "rerank",
            "the critic chooses among the nearest songs",
            {"rerank": 0},
            {"rerank": 10},
            needs={"points": 1},
        ),
        option(
            14,
            "one-point",
            "one point for the slate, not one for each place",
            {"points": default.slate_size},
            {"points": 1},
            needs={"rerank": 0},
        ),
        option(
            15,
            "twin-critics",
            "the smaller of two critics as target",
            {"critics": 1},
            {"critics": 2},
            needs=future,
        ),
        option(
            15,
            "delay",
            "one update of actor and targets for two of the critic",
            {"actor_delay": 1},
            {"actor_delay": 2},
        ),
        option(
            15,
            "smoothing",
            "noise on the target action",
            {"target_noise": 0.0},
            {"target_noise": 0.2},
            needs=future,
        ),
        option(
            16,
            "layer-norm",
            "normalised hidden layers",
            {"layer_norm": False},
            {"layer_norm": True},
        ),
        option(
            17,
            "own-quality",
            "the agent finds out how good songs are, in the log and while playing",
            {"quality": "counted"},
            {"quality": "learned"},
            needs={"embedding": None},
        ),
        option(
            18,
            "parallel",
            "many sessions at once and few updates, not one of each a step",
            {"num_envs": 1, "updates_per_step": 1.0},
            {"num_envs": 64, "updates_per_step": 0.25},
        ),
        option(
            19,
            "linear-critic",
            "the critic is linear in the action",
            {"deep": True},
            {"deep": False},
        ),
        option(
            20,
            "curiosity",
            "doubt about songs is drawn while learning",
            {"curiosity": 0.0},
            {"curiosity": 1.0},
            needs=known_quality,
        ),
        option(
            20,
            "spread",
            "doubt about songs is drawn when recommending",
            {"spread": 0.0},
            {"spread": 0.2},
            needs=known_quality,
        ),
        option(
            21,
            "quality-weight",
            "quality counts less in the choice than the critic says",
            {"quality_weight": 1.0},
            {"quality_weight": 0.35},
            needs={"embedding": None},
        ),
        option(
            22,
            "decay",
            "the critic's weights decay",
            {"critic_decay": 0.0},
            {"critic_decay": 1.0},
        ),
        option(
            23,
            "within-slates",
            "what songs add is learned from differences within slates",
            {"within_slates": False},
            {"within_slates": True},
            needs={"critic_sees": "songs"},
        ),
        option(
            24,
            "mean-critic",
            "songs are chosen by the running mean of the critic",
            {"mean_critic": False},
            {"mean_critic": True},
            needs={"rerank": default.rerank or default.slate_size, "points": 1},
        ),
    )


def published(options: Sequence[Departure]) -> dict[str, Any]:
    """Settings of the published algorithm: every departure taken back."""
    return {name: value for option in options for name, value in option.published.items()}
