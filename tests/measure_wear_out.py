"""Do songs like those just heard get skipped more? Counted on any dataset folder.

    python tests/measure_wear_out.py DATASET

Songs are alike where other sessions play them together: vectors are fitted on four fifths of the
sessions (singular vectors of positive pointwise mutual information), and wear is computed for the
other fifth, as is the skip rate of each track. Two questions are answered, over 500 resamples of
sessions:

- Within sessions: by how many points is a play skipped more where its wear is one sd higher, beside
  the last skips, repeats, position, the track's rate and popularity? All are taken about their mean
  in the session, so that what sets sessions apart cannot answer.
  Songs still to come cannot wear out anything: what these give is a placebo.
- Out of fold: how much better is a logistic regression of skips that knows wear too, on sessions
  that neither it nor the vectors saw?

Prints aggregates alone.
"""

import sys
from pathlib import Path

import numpy as np
from musicbox_experiments.text import say
from scipy import sparse
from scipy.sparse.linalg import svds
from sklearn.linear_model import LogisticRegression

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import repeats, running_skips
from musicbox_env.schema import is_skip
from musicbox_env.synthetic.satiation import Satiation

SHAPES = {
    "next song, decay .8": Satiation(1.0, 0.8, 0, 0.3),
    "last song alone": Satiation(1.0, 0.0, 0, 0.3),
    "felt six songs later, decay .9": Satiation(1.0, 0.9, 6, 0.3),
}
PLACEBO = "songs still to come, decay .8"
FOLDS, DIM, RESAMPLES, PRIOR = 5, 16, 500, 10
CONTROLS = (
    "previous",
    "running",
    "repeat",
    "rate",
    "popularity",
    "known songs",
    "place",
    "place 2",
)


def vectors_of(tracks, fitted, num_tracks):
    """Unit vectors of the tracks that the fitted sessions play, 0 for all others."""
    row, place = np.nonzero((tracks >= 0) & fitted[:, None])
    plays = sparse.csr_matrix(
        (np.ones(len(row)), (row, tracks[row, place])), (len(tracks), num_tracks)
    )
    plays.data[:] = 1
    together = (plays.T @ plays).tocoo()
    count = plays.sum(axis=0).A1
    a, b, n = together.row, together.col, together.data
    lift = np.log(n * fitted.sum() / (count[a] * count[b]))
    keep = (a != b) & (lift > 0) & (count[a] > 1) & (count[b] > 1)
    matrix = sparse.csr_matrix((lift[keep], (a[keep], b[keep])), (num_tracks, num_tracks))
    left, size, _ = svds(matrix, DIM, random_state=0)
    vectors = left * np.sqrt(size)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(norm > 1e-9, vectors / np.maximum(norm, 1e-9), 0).astype(np.float32)


def tables(dataset):
    """Plays of known tracks: session, skip, controls and the wear of each shape."""
    log = dataset.sessions
    sessions = np.arange(log.num_sessions)
    tracks, levels = (
        log.padded(name, sessions, 20).astype(np.int64) for name in ("track", "level")
    )
    played = levels >= 0
    tracks = np.where(played, tracks, -1)
    skips, again = is_skip(levels) & played, repeats(tracks)
    running = running_skips(levels, 0.75)
    fold = np.random.default_rng(0).integers(FOLDS, size=len(sessions))
    places = np.broadcast_to(np.arange(tracks.shape[1]), tracks.shape)
    parts = []
    for number in range(FOLDS):
        fitted, mine = fold != number, fold == number
        vectors = vectors_of(tracks, fitted, len(dataset.catalog))
        known = np.abs(vectors).sum(axis=1) > 0
        flat = tracks[fitted][played[fitted]]
        plays = np.bincount(flat, minlength=len(known))
        lost = np.bincount(flat, skips[fitted][played[fitted]], minlength=len(known))
        mean = lost.sum() / plays.sum()
        rate = (lost + PRIOR * mean) / (plays + PRIOR)
        # a track without a vector wears out nothing: it is heard, and moves the others on
        heard = tracks[mine]
        seen = np.where(heard >= 0, known[heard], False)
        before = np.cumsum(seen, axis=1) - seen
        columns = [
            np.roll(skips[mine], 1, axis=1),
            np.roll(running[mine], 1, axis=1),
            again[mine],
            rate[heard],
            np.log1p(plays[heard]),
            before / np.maximum(places[mine], 1),
            places[mine] / 20,
            (places[mine] / 20) ** 2,
        ]
        wear = [s.wear_in_order(heard[:, :0], heard, vectors) for s in SHAPES.values()]
        to_come = SHAPES["next song, decay .8"].wear_in_order(heard[:, :0], heard[:, ::-1], vectors)
        wear.append(to_come[:, ::-1])
        use = seen & (places[mine] >= 1)
        whose = np.broadcast_to(sessions[mine][:, None], use.shape)
        stack = np.stack([*columns, *wear], axis=-1).astype(np.float64)
        parts.append((whose[use], skips[mine][use], stack[use], np.full(use.sum(), number)))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def resampled(session, statistic):
    """95 % interval of a statistic of row weights, sessions resampled whole."""
    rng, ids = np.random.default_rng(1), np.unique(session, return_inverse=True)[1]
    found = []
    for _ in range(RESAMPLES):
        times = np.bincount(
            rng.integers(ids.max() + 1, size=ids.max() + 1), minlength=ids.max() + 1
        )
        found.append(statistic(times[ids].astype(float)))
    return np.percentile(found, [2.5, 97.5])


def within(session, skip, controls, wear):
    """Points of skipping for one sd of wear, within sessions."""
    ids = np.unique(session, return_inverse=True)[1]
    size = np.bincount(ids)
    table = np.column_stack([wear / wear.std(), controls, skip])
    centred = table - np.column_stack([np.bincount(ids, c) / size for c in table.T])[ids]
    x, y = centred[:, :-1], centred[:, -1]

    def of(weight):
        return (
            100 * np.linalg.lstsq(x.T @ (x * weight[:, None]), x.T @ (weight * y), rcond=None)[0][0]
        )

    return of(np.ones(len(y))), *resampled(session, of)


def out_of_fold(session, skip, controls, wear, fold):
    """Log-loss that wear saves for each play on sessions kept apart, in thousandths."""
    losses = []
    for table in (controls, np.column_stack([controls, wear])):
        table = (table - table.mean(axis=0)) / np.maximum(table.std(axis=0), 1e-9)
        loss = np.zeros(len(skip))
        for number in range(FOLDS):
            test = fold == number
            fit = LogisticRegression(C=10.0).fit(table[~test], skip[~test])
            chance = fit.predict_proba(table[test])[:, 1]
            loss[test] = -np.log(np.where(skip[test], chance, 1 - chance))
        losses.append(loss)
    saved = 1000 * (losses[0] - losses[1])
    return saved.mean(), *resampled(session, lambda w: (w * saved).sum() / w.sum())


def main(folder):
    """Print a line for each shape."""
    dataset = Dataset(folder)
    session, skip, columns, fold = tables(dataset)
    skip = skip.astype(float)
    controls = columns[:, : len(CONTROLS)]
    say(f"{len(skip):,} plays of {len(np.unique(session)):,} sessions, of tracks with a vector")
    for number, name in enumerate([*SHAPES, PLACEBO]):
        wear = columns[:, len(CONTROLS) + number]
        points = within(session, skip, controls, wear)
        saved = out_of_fold(session, skip, controls, wear, fold)
        say(
            f"{name:32s} wear above 0: {np.mean(wear > 0):.0%}  points for one sd: "
            f"{points[0]:+.2f} [{points[1]:+.2f}, {points[2]:+.2f}]  log-loss saved, thousandths: "
            f"{saved[0]:+.2f} [{saved[1]:+.2f}, {saved[2]:+.2f}]",
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
