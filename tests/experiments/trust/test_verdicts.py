"""Verdicts of a simulator validation report, for figures that are good, bad, even or unknown."""

import math
from itertools import product

import numpy as np
from musicbox_experiments.trust.records import Record
from musicbox_experiments.trust.tables import ANSWERS, CHECKS, verdicts


def random_record(rng: np.random.Generator, protocol: str, metric: str, band) -> Record | None:
    """A figure within, at or beyond the ends of its band, with an interval or none, or no value."""
    ends = [end for end in band if math.isfinite(end)]
    value = rng.choice(ends) + rng.choice([-0.1, 0.0, 0.1])
    low, high = (None, None) if rng.random() < 0.2 else (value - 0.05, value + 0.05)
    kind = rng.choice(["known", "none", "nan", "missing"], p=[0.85, 0.05, 0.05, 0.05])
    if kind == "missing":
        return None
    found = {"known": float(value), "none": None, "nan": math.nan}[str(kind)]
    return Record("l", protocol, metric, found, low, high)


def test_a_verdict_is_that_of_its_figures():
    rng, seen = np.random.default_rng(0), set()
    for _, (question, (protocol, bands)) in product(range(60), CHECKS.items()):
        records = [random_record(rng, protocol, metric, band) for metric, band in bands.items()]
        there = [record for record in records if record is not None]
        given = dict(verdicts(there)).get(question, {}).get("l")
        seen.add(given)
        inside, outside, near, known = [], [], [], []
        for record, (least, most) in zip(records, bands.values(), strict=True):
            if record is None or record.value is None or math.isnan(record.value):
                known.append(False)
                continue
            low = record.value if record.low is None else record.low
            high = record.value if record.high is None else record.high
            known.append(True)
            inside.append(least <= low and high <= most)
            outside.append(high < least or low > most)
            near.append(least <= record.value <= most)
        if any(outside):
            assert given == "no"
        elif not all(near):
            assert given == "doubtful"
        elif not all(known):
            assert given is None, "nothing good is said where a figure is unknown"
        else:
            assert given == ("yes" if all(inside) else "probably")
    assert seen == {None, *ANSWERS}
