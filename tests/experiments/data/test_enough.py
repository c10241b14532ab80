"""What a dataset is said to be too small for, recomputed over random datasets."""

import re

import numpy as np
import pytest
from musicbox_experiments.data.enough import cautions

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.splits import SplitConfig
from musicbox_env.data.writing import PlayBlock, write_dataset
from musicbox_env.schema import SPLITS

SHARES = ((0.7, 0.1, 0.2), (0.8, 0.0, 0.2), (0.5, 0.5, 0.0))


@pytest.mark.parametrize("seed", range(24))
def test_every_caution_is_true_of_the_counts(tmp_path, seed):
    rng = np.random.default_rng(seed)
    sessions, tracks = int(rng.choice([1, 3, 40, 4_000])), int(rng.choice([4, 300]))
    block = PlayBlock(
        session_ids=np.array([f"s{i}" for i in range(sessions)], dtype=object),
        lengths=np.full(sessions, 10),
        vocabulary=np.array([f"t{i}" for i in range(tracks)], dtype=object),
        columns={
            "track": rng.integers(0, tracks, sessions * 10),
            "level": rng.choice([0, 4], sessions * 10, p=rng.choice([[0.5, 0.5], [0, 1]])),
        },
    )
    split = SplitConfig(*SHARES[rng.integers(len(SHARES))])
    write_dataset(tmp_path, [block], features=None, split=split, about={})
    dataset = Dataset(tmp_path)
    told = " ".join(cautions(dataset))

    empty = {name for name in SPLITS if not len(dataset.sessions.sessions_in(name))}
    found = re.findall(r"none fell to (.*?): nothing can be learned, picked or evaluated", told)
    assert [set(names.split(", ")) for names in found] == ([empty] if empty else [])

    test = dataset.sessions.sessions_in("test")
    levels = dataset.sessions.padded("level", test)
    rates = (levels < 2).mean(axis=1)
    assert ("nothing can be measured" in told) == (len(test) < 2)
    if len(test) > 1:
        half = 1.96 * rates.std(ddof=1) / len(test) ** 0.5
        wide = re.findall(r"known to ± ([\d.]+) points", told)
        assert wide == ([f"{100 * half:.1f}"] if half > 0.02 else [])

    thin = (dataset.catalog.plays() < 5).mean()
    assert re.findall(r"(\d+) % of the [\d,]+ tracks have fewer", told) == (
        [f"{100 * thin:.0f}"] if thin >= 0.5 else []
    )
    assert "one listener" not in told
