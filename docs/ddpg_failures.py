"""Train a few DDPG agents that fail, each in its way, and draw how that looks.

    python docs/ddpg_failures.py runs/failures

keeps what it measured there, and writes the pictures of `docs/ddpg.md` beside itself. One seed
each, on the bundled synthetic dataset; the exact listening law teaches and evaluators.
"""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator
from musicbox_agents import make_agent
from musicbox_agents.ddpg.agent import mean_cosine
from musicbox_experiments.compare import plots
from musicbox_experiments.data.sampling import picking_sessions
from musicbox_experiments.evaluate.metrics import effective_catalog_size, exposure
from musicbox_experiments.evaluate.rollout import open_sessions, roll_out, skip_rate
from musicbox_experiments.train.departures import departures, published
from tqdm import tqdm

from musicbox_env.simulator.assets import open_dataset

LISTENER = "ground_truth"
PLAIN = published(departures())
CRITIC_ALONE = {"quality_weight": 1.0}
ACTOR_ALONE = {**CRITIC_ALONE, "rerank": 0, "quality": "counted", "critic_decay": 0.0}
RUNS = {
    "published": (PLAIN, 4_000),
    "published, unit norm": ({**PLAIN, "squash": "unit"}, 4_000),
    "default, tanh": ({"squash": "tanh"}, 4_000),
    "default": ({}, 16_000),
    "quality_weight 1": (CRITIC_ALONE, 16_000),
    "quality_weight 1, fast actor": ({**CRITIC_ALONE, "actor_rate": 1e-2}, 16_000),
    "actor alone, fast": ({**ACTOR_ALONE, "actor_rate": 1e-2}, 16_000),
    "actor alone, deep critic": (
        {**ACTOR_ALONE, "actor_rate": 3e-3, "deep": True, "updates_per_step": 1.0},
        3_000,
    ),
}
"""Settings and slates of each training."""
PICTURES = {
    "saturation": ("saturated", "outputs beyond 0.95", ["published", "default, tanh", "default"]),
    "constant_point": (
        "cosine",
        "mean cosine of two points",
        ["published", "published, unit norm", "default, tanh", "default"],
    ),
    "coverage": (
        "songs",
        "effective catalog size",
        ["published", "default", "quality_weight 1"],
    ),
    "late_decay": (
        "skip_rate",
        "validation skip rate",
        ["default", "quality_weight 1", "actor alone, fast", "actor alone, deep critic"],
    ),
}
SHORT = ("saturation", "constant_point")
"""For each picture: what is drawn, its name, and of which trainings; some to 4,000 slates only."""


def signs(agent, dataset):
    """What tells the failures apart, on validation sessions; the agent learns nothing from it."""
    sessions = picking_sessions(dataset, 500)
    options = {"split": "validation"}
    with open_sessions(agent, {**options, "listener": LISTENER}, sessions, 0) as (_, observation):
        points = agent.points(observation)
    rollout = roll_out(agent, options, sessions, listener=LISTENER)
    return {
        "skip_rate": skip_rate(rollout),
        "songs": effective_catalog_size(exposure(rollout, len(dataset.catalog))),
        "cosine": mean_cosine(points[:, 0]),
        "saturated": float((np.abs(points) > 0.95).mean()),
        "first_slates": len(np.unique(rollout.slates[:, 0], axis=0)),
    }


def follow(settings, steps):
    """One training: its signs before the first slate and after every 500 or so."""
    dataset = open_dataset(None)
    agent = make_agent("ddpg", dataset, seed=0, settings=settings)
    rows = [{"steps": 0, **signs(agent, dataset)}]
    with tqdm(total=steps, unit="step") as bar:

        def note(done, _):
            rows.append({"steps": done, **signs(agent, dataset)})
            bar.update(done - bar.n)

        options = {"split": "train", "listener": LISTENER}
        agent.learn(options, steps, callback=note, callback_every=max(steps // 16, 250))
    return rows


def main(out, docs):
    """Train what is not trained yet, and draw."""
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for label, (settings, steps) in RUNS.items():
        file = out / f"{label}.json"
        if not file.exists():
            file.write_text(json.dumps(follow(settings, steps), indent=1))
        found[label] = json.loads(file.read_text())
    for name, (sign, title, labels) in PICTURES.items():
        most = 4_200 if name in SHORT else np.inf
        curves = {
            label: {0: [(row["steps"], row[sign]) for row in found[label] if row["steps"] <= most]}
            for label in labels
        }
        share = sign in ("saturated", "skip_rate")
        figure = plots.learning_curves(curves, label=title, percent=share)
        figure.set_size_inches(8.6, 3.4)
        figure.set_dpi(90)
        figure.axes[0].xaxis.set_major_locator(MaxNLocator(5))
        (docs / f"ddpg_{name}.png").write_bytes(plots.png(figure))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent)
