"""The replay memory."""

import numpy as np
import pytest
from musicbox_agents.ddpg.replay import ReplayBuffer, Transitions, draw_batches


def numbered(numbers: list[int]) -> Transitions:
    """Transitions whose every column says which one it is."""
    n = np.array(numbers)
    column = n[:, None]
    return Transitions(
        tracks=np.repeat(column, 4, 1).astype(np.int32),
        levels=np.repeat(column % 5, 4, 1).astype(np.int8),
        context=column.astype(np.float32),
        slate=np.repeat(column, 3, 1).astype(np.int32),
        slate_levels=np.repeat(column % 5, 3, 1).astype(np.int8),
        slate_axis=np.repeat(column, 3, 1).astype(np.float32),
        song_reward=np.repeat(column, 3, 1).astype(np.float32),
        terminated=n % 2 == 0,
        next_position=n.astype(np.float32),
        logged=n >= 10,
    )


def test_keeps_the_newest_whole_rows() -> None:
    memory = ReplayBuffer(5)
    for part in ([0, 1, 2], [3, 4, 5, 6], [7]):
        memory.add(numbered(part))
    assert len(memory) == 5
    stored = memory.stored
    assert sorted(stored.next_position.tolist()) == [3, 4, 5, 6, 7]
    for column in (stored.tracks, stored.context, stored.slate, stored.song_reward):
        assert (column == stored.next_position[:, None]).all()


def test_more_than_it_holds_at_once() -> None:
    memory = ReplayBuffer(3)
    memory.add(numbered([0, 1]))
    memory.add(numbered(list(range(10, 20))))
    assert sorted(memory.stored.next_position.tolist()) == [17, 18, 19]


def test_draws_uniformly_from_what_was_stored() -> None:
    memory = ReplayBuffer(100)
    memory.add(numbered([5, 6, 7, 8]))
    drawn = memory.sample(np.random.default_rng(0), 8000)
    values, counts = np.unique(drawn.next_position, return_counts=True)
    assert values.tolist() == [5, 6, 7, 8]
    # A binomial count of mean 2,000 has sd 39.
    assert np.abs(counts - 2000).max() < 4 * 39


def test_batches_mix_their_sources_row_after_row() -> None:
    memory, log = ReplayBuffer(6), ReplayBuffer(4)
    memory.add(numbered(list(range(6))))
    log.add(numbered(list(range(10, 14))))
    sources = [(memory, 3), (log, 1)]
    drawn = list(draw_batches(np.random.default_rng(0), 20, sources))
    rows = Transitions.joined(drawn)
    again, expected = np.random.default_rng(0), []
    for _ in range(20):
        expected += [*again.integers(6, size=3), *(10 + again.integers(4, size=1))]
    assert rows.next_position.tolist() == expected
    for column in (rows.tracks, rows.song_reward, rows.slate):
        assert (column == np.array(expected)[:, None]).all()
    assert rows.logged.tolist() == [False, False, False, True] * 20
    assert len(drawn) == 2


def test_what_was_stored_does_not_change_with_the_arrays_it_came_from() -> None:
    memory = ReplayBuffer(4)
    new = numbered([1, 2])
    memory.add(new)
    new.tracks[:] = 99
    assert 99 not in memory.stored.tracks


def test_keeps_types_so_that_a_transition_stays_small() -> None:
    memory = ReplayBuffer(1)
    memory.add(numbered([1]))
    assert memory.stored.levels.dtype == np.int8
    assert memory.stored.tracks.dtype == np.int32


def test_refuses_to_draw_from_nothing_and_to_hold_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        ReplayBuffer(3).sample(np.random.default_rng(0), 1)
    with pytest.raises(ValueError, match="needs 1 or more"):
        ReplayBuffer(0)


def test_after_a_slate_it_stands_at_the_end_of_what_was_heard() -> None:
    rows = numbered([0, 0, 0])
    rows.tracks[:] = [[-1, -1, 5, 6], [1, 2, 3, 4], [-1, 7, 7, 8]]
    rows.levels[:] = [[-1, -1, 0, 4], [1, 2, 3, 4], [-1, 0, 1, 2]]
    rows.slate[:] = [[9, 10, 11], [9, 10, -1], [-1, -1, -1]]
    rows.slate_levels[:] = [[4, 3, 2], [4, 3, -1], [-1, -1, -1]]
    rows.next_position[:] = [0.5, 0.7, 0.9]
    after = rows.after()
    assert after["tracks"].tolist() == [[6, 9, 10, 11], [3, 4, 9, 10], [-1, 7, 7, 8]]
    assert after["levels"].tolist() == [[4, 4, 3, 2], [3, 4, 4, 3], [-1, 0, 1, 2]]
    np.testing.assert_array_equal(after["context"][:, -1], rows.next_position)
    assert after["tracks"].dtype == np.int32
    assert after["levels"].dtype == np.int8


def test_joins_in_order() -> None:
    joined = Transitions.joined([numbered([1, 2]), numbered([3])])
    assert joined.next_position.tolist() == [1, 2, 3]
    assert len(joined) == 3
