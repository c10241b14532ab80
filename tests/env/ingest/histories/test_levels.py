"""How far plays were heard: the rules one by one, and lengths that are only estimated."""

import numpy as np
import pytest
from test_sessionize import listens_of

from musicbox_env.ingest.histories.levels import (
    TYPICAL_LENGTH_MS,
    Evidence,
    LengthEstimate,
    LevelConfig,
    listen_levels,
)
from musicbox_env.schema import REASONS_END

DONE, FORWARD = REASONS_END.index("trackdone"), REASONS_END.index("fwdbtn")


def level_of(*, config=None, estimated=200_000, source=Evidence.ENDED_PLAYS, **columns):
    listens = listens_of(1, **columns)
    level, evidence = listen_levels(
        listens, np.array([estimated]), np.array([source]), config or LevelConfig()
    )
    return int(level[0]), Evidence(evidence[0])


@pytest.mark.parametrize(
    ("ms", "level"),
    [
        *((0, 0), (19_999, 0), (20_000, 1), (65_999, 1), (66_000, 2), (179_999, 2)),
        *((180_000, 3), (193_999, 3), (194_000, 4), (200_000, 4), (400_000, 4)),
    ],
)
def test_shares_of_a_length(ms, level):
    """The documented lines, each from both sides; a stated length goes before an estimate."""
    assert level_of(ms=ms) == (level, Evidence.ENDED_PLAYS)
    assert level_of(ms=ms, length=200_000, estimated=1) == (level, Evidence.STATED_LENGTH)


@pytest.mark.parametrize(
    ("columns", "level", "evidence"),
    [
        # Crossfade: ended by itself, seconds short of full.
        ({"ms": 185_000, "reason_end": DONE}, 4, Evidence.ENDED_ITSELF),
        # Jumped ahead: ended by itself, though little of it was heard.
        ({"ms": 30_000, "reason_end": DONE}, 1, Evidence.ENDED_PLAYS),
        # The listener ended it in its last second.
        ({"ms": 200_000, "reason_end": FORWARD}, 3, Evidence.ENDED_PLAYS),
        ({"ms": 200_000, "skipped": 1}, 3, Evidence.ENDED_PLAYS),
        # Spotify's false says nothing, that of a table does, and a reason outdoes both.
        ({"ms": 185_000, "skipped": 0}, 3, Evidence.ENDED_PLAYS),
        ({"ms": 185_000, "skipped": 0, "flags_trusted": True}, 4, Evidence.ENDED_ITSELF),
        ({"ms": 185_000, "completed": 1, "flags_trusted": True}, 4, Evidence.ENDED_ITSELF),
        (
            {"ms": 200_000, "completed": 1, "flags_trusted": True, "reason_end": FORWARD},
            3,
            Evidence.ENDED_PLAYS,
        ),
        # Nothing but a flag.
        ({"ms": -1, "skipped": 1, "flags_trusted": True}, 1, Evidence.FLAG),
        ({"ms": -1, "completed": 0, "flags_trusted": True}, 1, Evidence.FLAG),
        ({"ms": -1, "skipped": 0, "flags_trusted": True}, 4, Evidence.FLAG),
        ({"ms": -1, "completed": 1, "flags_trusted": True}, 4, Evidence.FLAG),
    ],
)
def test_what_says_more_than_the_share(columns, level, evidence):
    assert level_of(**columns) == (level, evidence)


def test_other_lines():
    config = LevelConfig(brief=0.2, short=0.5, most=0.7, cut=0.8)
    assert [level_of(ms=ms, config=config)[0] for ms in (39_000, 99_000, 139_000, 159_000)] == [
        *(0, 1, 2, 3)
    ]
    for shares in ({"brief": 0.4}, {"brief": 0.0}, {"cut": 1.1}, {"most": 0.98}):
        with pytest.raises(ValueError, match="must rise from above 0 to 1"):
            LevelConfig(**shares)


def lengths(*batches):
    """Lengths of two tracks, the plays of track 0 given in batches of (ms, reason_end)."""
    estimate = LengthEstimate(2)
    for plays in batches:
        ms, reasons = zip(*plays, strict=True)
        estimate.add(listens_of(len(plays), ms=ms, reason_end=reasons))
    length, evidence = estimate.finish()
    return int(length[0]), Evidence(evidence[0])


@pytest.mark.parametrize(
    ("plays", "length", "evidence"),
    [
        ([(200_000, DONE)], 200_000, Evidence.ENDED_PLAYS),
        # Two of three ended plays agree; the third was jumped through, a fourth wound back.
        ([(200_000, DONE), (30_000, DONE), (200_500, DONE)], 200_000, Evidence.ENDED_PLAYS),
        ([(200_000, DONE)] * 3 + [(390_000, FORWARD)], 200_000, Evidence.ENDED_PLAYS),
        # A single ended play that was jumped through is outdone by a longer play.
        ([(30_000, DONE), (150_000, FORWARD)], 150_000, Evidence.ENDED_PLAYS),
        # No reasons: the longest time, if it was heard twice and is no coincidence of skips.
        ([(180_000, -1), (180_900, -1), (60_000, -1)], 180_900, Evidence.AGREEING_PLAYS),
        ([(180_000, -1), (150_000, -1)], TYPICAL_LENGTH_MS, Evidence.TYPICAL_LENGTH),
        ([(12_000, -1), (12_100, -1)], TYPICAL_LENGTH_MS, Evidence.TYPICAL_LENGTH),
        ([(300_000, -1)], 300_000, Evidence.TYPICAL_LENGTH),
        ([(0, DONE), (0, -1)], TYPICAL_LENGTH_MS, Evidence.TYPICAL_LENGTH),
    ],
)
def test_length_of_a_track(plays, length, evidence):
    """The same whether the plays come at once or one by one."""
    assert lengths(plays) == (length, evidence)
    assert lengths(*([play] for play in plays)) == (length, evidence)


def test_typical_length_is_that_of_the_known_tracks():
    estimate = LengthEstimate(4)
    plays = listens_of(3, track=[0, 1, 2], ms=[100_000, 120_000, 500_000], reason_end=DONE)
    estimate.add(plays)
    estimate.add(listens_of(1, track=3, ms=7_000, reason_end=FORWARD))
    length, evidence = estimate.finish()
    assert (length[3], evidence[3]) == (120_000, Evidence.TYPICAL_LENGTH)


def test_many_plays_of_a_track_keep_their_middle():
    """More plays than are remembered, in batches: near enough the middle of all."""
    rng = np.random.default_rng(0)
    estimate = LengthEstimate(50)
    true = rng.integers(60_000, 400_000, 50)
    for _ in range(5):
        track = rng.integers(0, 50, 400)
        ms = true[track] - rng.integers(0, 8_000, 400) * (rng.random(400) < 0.2)
        estimate.add(listens_of(400, track=track, ms=ms, reason_end=DONE))
    length, _ = estimate.finish()
    np.testing.assert_array_equal(length, true)
