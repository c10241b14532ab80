"""d3rlpy's TD3+BC and IQL from the logged sessions that `musicbox export` wrote for Minari."""

import argparse
import os
import tempfile

import d3rlpy
import minari
import numpy as np
import torch
from interop import report
from musicbox_experiments.cli import main

torch.set_num_threads(1)
SESSIONS = 3_000
ALGORITHMS = {"TD3+BC": d3rlpy.algos.TD3PlusBCConfig, "IQL": d3rlpy.algos.IQLConfig}


def logged_sessions():
    """The exported set as d3rlpy holds it; rewards are logged labels."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--observation", "flat", "--sessions", str(SESSIONS), "--out", folder)
        main(["export", "--minari", *options])
        os.environ["MINARI_DATASETS_PATH"] = folder
        episodes = list(minari.load_dataset("musicbox-logged-v0").iterate_episodes())
    return d3rlpy.dataset.MDPDataset(
        observations=np.concatenate([e.observations[:-1] for e in episodes]),
        actions=np.concatenate([e.actions for e in episodes]),
        rewards=np.concatenate([e.rewards for e in episodes]),
        terminals=np.concatenate([e.terminations for e in episodes]).astype(np.float32),
        timeouts=np.concatenate([e.truncations for e in episodes]).astype(np.float32),
    )


def train(algorithm, seed, steps):
    """A policy on flat observations, after ``steps`` updates."""
    d3rlpy.seed(seed)
    learner = ALGORITHMS[algorithm]().create(device="cpu")
    quiet = d3rlpy.logging.NoopAdapterFactory()
    learner.fit(
        logged_sessions(), n_steps=steps, n_steps_per_epoch=steps, logger_adapter=quiet,
        show_progress=False,
    )  # fmt: skip
    return learner.predict


if __name__ == "__main__":
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--algorithm", choices=ALGORITHMS, default="TD3+BC")
    given, rest = chosen.parse_known_args()
    report(
        f"d3rlpy {given.algorithm}",
        lambda seed, steps: train(given.algorithm, seed, steps),
        arguments=rest,
    )
