"""Named comparisons: options that belong together, each of which an explicit option overrides."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from musicbox_env.schema import require_known
from musicbox_experiments.data.sources import Filters, Source
from musicbox_experiments.train.variants import parse_settings


@dataclass(frozen=True)
class Preset:
    """Options of `musicbox compare` under one name.

    Attributes:
        about: What it is for.
        options: Fields of `CompareConfig`.
        needs_sessions: Whether real sessions must be named.
    """

    about: str
    options: Mapping[str, Any] = field(default_factory=dict)
    needs_sessions: bool = False


BASELINES: Final = (
    *("random", "popularity", "logged", "content", "item-knn", "session-knn"),
    *("best-rate", "played-rate", "linucb"),
)
LEARNERS: Final = ("ddpg", "lird", "sb3-ddpg", "sb3-ddpg+tuned")
FIELD: Final = (*BASELINES, "bayes", *LEARNERS, "skyline")
ABLATION: Final = (
    "ddpg+content.embedding=content",
    "ddpg+counted.quality=counted",
    "ddpg+random-start.start=random",
    "ddpg+gamma.gamma=0.9",
    *("ddpg+no-log.offline_fraction=0", "ddpg+no-log.warmup_updates=0"),
    "ddpg+no-noise.noise=0",
    *("ddpg+one-session.num_envs=1", "ddpg+one-session.updates_per_step=1"),
    "ddpg+nearest.rerank=0",
    "ddpg+full-quality.quality_weight=1",
    "ddpg+across-slates.within_slates=false",
    "ddpg+last-critic.average_critic=false",
)
REACHES: Final = ("planner+blind.reach=nothing", "planner+slate.reach=slate")
"""The oracle that reads less of what wears out; `skyline` composes song by song."""
LISTS: Final = tuple(
    f"ddpg+{label}.{setting}"
    for label, settings in {
        "list": ("reach=song", "history_length=80"),
        "look-ahead": ("reach=song", "history_length=80", "gamma=0.5"),
    }.items()
    for setting in settings
)
"""`ddpg` that sees wear and composes slates as lists, all that a session heard before it."""
ORDER: Final[Mapping[str, Any]] = {
    "agents": (
        *("random", "popularity", "logged", "played-rate", "lird", "sb3-ddpg", "ddpg"),
        *(*parse_settings(LISTS), "ddpg+list@reach=slate", "bayes"),
        *parse_settings(REACHES),
        *("skyline", "planner"),
    ),
    "agent_settings": (*REACHES, *LISTS),
    "seeds": 10,
    "horizon": 60,
    "evaluator": ("ground_truth",),
    "evaluation_sessions": 500,
}

PRESETS: Final[Mapping[str, Preset]] = {
    "paper": Preset(
        "the whole field over ten seeds, on the bundled synthetic sessions",
        {"agents": FIELD, "seeds": 10},
    ),
    "high-taste": Preset(
        "the same in a synthetic world where personal taste counts three times as much",
        {"agents": FIELD, "seeds": 10, "source": Source(taste="high")},
    ),
    "real": Preset(
        "the field on your own sessions: trained on one half of the training sessions, with a "
        "learned listener of that half, evaluated by one of the other half, both ways, by replay, "
        "and over real labels",
        {
            "agents": (*BASELINES, *LEARNERS, "ddpg+pessimistic"),
            "seeds": 10,
            "listener": "learned",
            "both_directions": True,
        },
        needs_sessions=True,
    ),
    "transfer": Preset(
        "what remains of a gain at other listeners than that of the training: trained on one half "
        "of the training sessions, with a learned listener of that half, as it is and made "
        "pessimistic, evaluated by the exact law and by a learned listener of the other half, both "
        "ways",
        {
            "agents": (
                *("logged", "best-rate", "played-rate"),
                *("ddpg", "ddpg+pessimistic", "sb3-ddpg"),
            ),
            "seeds": 10,
            "listener": "learned",
            "both_directions": True,
        },
    ),
    "first": Preset(
        "every setting of the first MusicBox (2019): tracks of popularity 95, sessions of 20 "
        "plays, history 10, lists of 3, the similarity listener with grouped cosine, its learning "
        "rates, 5 episodes of 50 rounds; its two figures stand beside ours",
        {
            "source": Source(
                filters=Filters(max_rows=100_000, session_length=20, min_popularity=95)
            ),
            "agents": (
                *("random", "popularity", "logged", "best-rate", "played-rate"),
                *("lird+first", "ddpg"),
            ),
            "listener": "similarity-grouped_cosine",
            "evaluator": ("replay", "similarity-grouped_cosine"),
            "train_steps": 5 * 50,
            "train_horizon": 50 * 3,
        },
    ),
    "order": Preset(
        "a synthetic world in which songs wear out those like them, strongly and for a short time, "
        "so that the order of songs matters: sessions of 60 songs, and what an oracle gains by "
        "reading wear, composing the slate as a list, and looking ahead",
        {**ORDER, "source": Source(satiation="high")},
    ),
    "order-late": Preset(
        "the same where wear is felt six songs later, so that looking ahead pays",
        {**ORDER, "source": Source(satiation="late")},
    ),
    "ablation": Preset(
        "what each part of ddpg adds: ddpg beside itself with one part taken away, over ten paired "
        "seeds, on validation sessions",
        {
            "agents": ("logged", "ddpg", *parse_settings(ABLATION)),
            "agent_settings": ABLATION,
            "seeds": 10,
            "split": "validation",
        },
    ),
    "frontier": Preset(
        "skips against variety: trained ddpg agents that choose among more or fewer songs, and "
        "weigh the quality of songs more or less, on validation sessions",
        {
            "agents": (
                *("logged", "popularity", "best-rate", "played-rate", "ddpg"),
                *(f"ddpg@quality_weight={weight}" for weight in (0.1, 0.2, 0.5, 1)),
                *(f"ddpg@rerank={number}" for number in (0, 10, 200)),
                *("bayes", "skyline"),
            ),
            "seeds": 10,
            "split": "validation",
        },
    ),
}


def preset_in(arguments: Sequence[str]) -> str | None:
    """The preset that a command line names, None if it names none.

    >>> preset_in(["--seeds", "2", "--preset", "paper"]), preset_in(["--preset=real"])
    ('paper', 'real')
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?")
    named: str | None = parser.parse_known_args(arguments)[0].preset
    return named


def options_of(name: str, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Fields of `CompareConfig` under a preset, to start from; it goes to a folder of its own.

    Args:
        name: The preset.
        arguments: Of the command line. Where they name sessions, these take the place of the
            synthetic world of the preset.

    Raises:
        ValueError: No preset has that name; the message suggests one.
    """
    require_known("preset", name, PRESETS)
    options = {"preset": name, "out": Path("runs") / name, **PRESETS[name].options}
    if "source" in options and _names_sessions(arguments):
        options["source"] = Source(filters=options["source"].filters)
    return options


def _names_sessions(arguments: Sequence[str]) -> bool:
    """Whether a command line names sessions to work on."""
    return any(argument.split("=")[0] in ("--data", "--sessions") for argument in arguments)


def require_sessions(name: str | None, source: Source) -> None:
    """Refuse a preset for real sessions where none are named.

    Raises:
        ValueError: With the options that name them.
    """
    if name is not None and PRESETS[name].needs_sessions and source.synthetic:
        raise ValueError(
            f"--preset {name} is for real sessions, and none are named: pass --sessions LOGS "
            "(with --tracks FEATURES), or --data FOLDER of `musicbox ingest`."
        )
