"""Open the page of a run; without one, of agents that are trained in the bundled world first.

    musicbox play

It trains a few agents, which takes about a minute once, serves them to this machine alone, and
opens the page in a browser. `musicbox serve` has more options.
"""

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import tyro
from musicbox_agents.base import require_ranges

from musicbox_experiments.serve import serve
from musicbox_experiments.text import say
from musicbox_experiments.train.train import TrainConfig, train

PLAYED: Final = ("ddpg", "played-rate", "linucb", "best-rate", "popularity")
TRAIN_STEPS: Final = 1_000


@dataclass(frozen=True)
class PlayConfig:
    """Options of `musicbox play`."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a run made by `musicbox compare` or `musicbox train`; if left out, agents are
    trained in the bundled synthetic world."""
    out: Path = Path("runs/play")
    """Where agents that are trained for this are written, and found the next time."""
    port: int = 8765
    browser: bool = True
    """Open the page in a browser."""

    def __post_init__(self) -> None:
        require_ranges(self, {"port": (0, 65_535)})


def run(config: PlayConfig) -> None:
    """Serve until interrupted."""
    serve.require_installed()
    with serve.bound(serve.ServeConfig.host, config.port):
        pass  # one that is taken is not found out after the training
    if config.run is None:
        say(f"Training {', '.join(PLAYED)}, unless {config.out} holds them: about a minute.")
        for agent in PLAYED:
            train(TrainConfig(agent=agent, train_steps=TRAIN_STEPS, out=config.out, workers=1))
    served = serve.ServeConfig(config.run or config.out, port=config.port)
    serve.serve(served, started=webbrowser.open if config.browser else None)
