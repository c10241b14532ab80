"""What the networks see, and that gradients reach all of it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from musicbox_agents.ddpg.networks import Actor, Critic, follow, unit
from musicbox_agents.ddpg.state import HALF_LIVES, State, num_statistics, read_sessions
from torch import Tensor

from musicbox_env.schema import NUM_LEVELS
from musicbox_env.simulator.observations import CONTEXT_SIZE

DIM, LENGTH = 5, 10


@pytest.fixture(autouse=True)
def _fixed_weights() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def session(songs: Tensor, levels: list[int], *, length: int = LENGTH, rate: bool = False) -> State:
    """One session, padded in front."""
    padding = length - len(levels)
    return sessions(songs[None], np.array([[-1] * padding + levels], np.int8), rate=rate)


def sessions(songs: Tensor, levels: np.ndarray, *, rate: bool = False) -> State:
    """Sessions of their own songs each ``(n, s, DIM)``, which are the last ``s`` of ``levels``."""
    n, length = levels.shape
    tracks = np.full((n, length), -1, np.int32)
    heard = songs.shape[1]
    tracks[:, length - heard :] = np.arange(n * heard).reshape(n, heard)
    space = torch.cat([songs.flatten(0, 1), torch.full((1, DIM), torch.nan)]).numpy()
    context = np.zeros((n, CONTEXT_SIZE), np.float32)
    return read_sessions(space, tracks, levels, context, rate=rate)


@pytest.fixture
def songs() -> Tensor:
    return unit(torch.randn(4, DIM, generator=torch.Generator().manual_seed(1)))


LEVELS = [4, 0, 1, 2]


def test_means_separate_played_kept_and_skipped(songs: Tensor) -> None:
    played, kept, skipped = session(songs, LEVELS).means[0]
    torch.testing.assert_close(played, songs.mean(0))
    torch.testing.assert_close(kept, (songs[0] + songs[3]) / 2)
    torch.testing.assert_close(skipped, (songs[1] + songs[2]) / 2)
    without_rate = session(songs, LEVELS, rate=True).means[0]
    torch.testing.assert_close(without_rate[:, :-1], torch.stack([played, kept, skipped])[:, :-1])
    assert not without_rate[:, -1].any()


def test_means_of_nothing_are_zero(songs: Tensor) -> None:
    assert not session(songs, [4, 4, 4, 4]).means[0, 2].any()
    nothing = session(songs[:0], [], rate=True)
    assert not nothing.means.any()
    assert not nothing.statistics.any()


def test_statistics_by_hand(songs: Tensor) -> None:
    """Shares of levels and mean rate, play by play under weights that halve every few songs."""
    state = session(songs, LEVELS, rate=True)
    found = state.statistics[0]
    assert len(found) == num_statistics(rate=True)
    recent = found[: -CONTEXT_SIZE - 1].view(NUM_LEVELS + 1, len(HALF_LIVES))
    for k, half in enumerate(HALF_LIVES):
        weights = [0.5 ** (age / half) for age in (3, 2, 1, 0)]
        for level in range(NUM_LEVELS):
            heard = sum(w for w, there in zip(weights, LEVELS, strict=True) if there == level)
            assert recent[level, k].item() == pytest.approx(heard / sum(weights), abs=1e-6)
        rate = sum(w * song[-1].item() for w, song in zip(weights, songs, strict=True))
        assert recent[-1, k].item() == pytest.approx(rate / sum(weights), abs=1e-6)
    assert found[-1].item() == pytest.approx(len(LEVELS) / LENGTH)


@pytest.mark.parametrize("place", range(4))
def test_every_level_is_read(songs: Tensor, place: int) -> None:
    """The first MusicBox's GRU stopped after three songs of ten."""
    before = session(songs, LEVELS).statistics
    # The new level is a skip like the old one, or kept like it.
    other_level = [*LEVELS]
    other_level[place] = {4: 3, 0: 1, 1: 0, 2: 3}[LEVELS[place]]
    assert not torch.allclose(session(songs, other_level).statistics, before)


@pytest.mark.parametrize("place", range(4))
def test_every_song_is_read(songs: Tensor, place: int) -> None:
    other_song = songs.clone()
    other_song[place] = -songs[place]
    actor = Actor(DIM)
    before = actor(session(songs, LEVELS))
    assert not torch.allclose(actor(session(other_song, LEVELS)), before)


def test_order_is_read(songs: Tensor) -> None:
    backwards = session(songs.flip(0), LEVELS[::-1]).statistics
    assert not torch.allclose(backwards, session(songs, LEVELS).statistics, atol=1e-4)


def test_padding_is_not_read(songs: Tensor) -> None:
    """What lies in the padding changes nothing, and its length only the share of the history."""
    noise = torch.randn(LENGTH - len(LEVELS), DIM)
    levels = np.array([[-1] * len(noise) + LEVELS], np.int8)
    noisy, here = sessions(torch.cat([noise, songs])[None], levels), session(songs, LEVELS)
    for found, expected in zip(noisy, here, strict=True):
        torch.testing.assert_close(found, expected)
    short = session(songs, LEVELS, length=len(LEVELS))
    torch.testing.assert_close(here.statistics[:, :-1], short.statistics[:, :-1])


def test_proto_actions_have_norm_one_and_do_not_depend_on_the_batch(songs: Tensor) -> None:
    actor = Actor(DIM)
    one, other = session(songs, LEVELS), session(songs[:2], [0, 4])
    both = State(*(torch.cat(parts) for parts in zip(one, other, strict=True)))
    proto_actions = actor(both)
    assert proto_actions.shape == (2, DIM)
    torch.testing.assert_close(proto_actions.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(proto_actions[1:], actor(other))


def test_heuristic_is_the_mean_of_the_played_songs_plus_the_rate(songs: Tensor) -> None:
    actor = Actor(DIM, rate=True)
    actor.start_at_heuristic(2.0)
    wanted = songs.mean(0)
    wanted[-1] = 2.0
    state = session(songs, LEVELS, rate=True)
    torch.testing.assert_close(actor(state)[0], unit(wanted))
    actor = Actor(DIM)
    actor.start_at_heuristic(2.0)
    torch.testing.assert_close(actor(session(songs, LEVELS))[0], unit(songs.mean(0)))


@pytest.mark.parametrize("start", ["random", "heuristic"])
def test_gradient_reaches_every_weight_of_the_actor(songs: Tensor, start: str) -> None:
    """From the heuristic, layers behind zero weights follow one update later."""
    actor = Actor(DIM)
    if start == "heuristic":
        actor.start_at_heuristic(2.0)
    optimizer = torch.optim.SGD(actor.parameters(), lr=0.1)
    for _ in range(1 if start == "random" else 2):
        optimizer.zero_grad()
        (actor(session(songs, LEVELS)) @ songs.mean(0)).sum().backward()
        optimizer.step()
    for name, weights in actor.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.any(), name


def test_gradient_reaches_every_weight_of_the_critic(songs: Tensor) -> None:
    """Last layers start at zero, so that those below follow one update later."""
    critic = Critic(DIM, rate=True)
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        state = session(songs, LEVELS, rate=True)
        (critic(state, songs[None]) * torch.tensor([1, 2, 3, 4])).sum().backward()
        optimizer.step()
    for name, weights in critic.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.any(), name


def test_a_new_critic_values_all_actions_equally(songs: Tensor) -> None:
    state = session(songs, LEVELS, rate=True)
    q = Critic(DIM, rate=True)(state, songs[None])
    torch.testing.assert_close(q, q[:, :1].expand(-1, 4))


def test_critic_learns_that_listeners_like_what_they_play() -> None:
    """Q = cosine of the action with the played songs, for sessions and actions never seen."""
    torch.manual_seed(3)
    critic = Critic(DIM)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)

    def draw(n: int) -> tuple[State, Tensor, Tensor]:
        taste = unit(torch.randn(n, 1, DIM))
        heard = unit(taste + 0.3 * torch.randn(n, LENGTH, DIM))
        action = unit(torch.randn(n, 1, DIM))
        levels = torch.randint(0, 5, (n, LENGTH)).numpy().astype(np.int8)
        state = sessions(heard, levels)
        return state, action, (action * unit(heard.mean(1, keepdim=True))).sum(2)[:, 0]

    for _ in range(200):
        state, action, affinity = draw(64)
        optimizer.zero_grad()
        (critic(state, action)[:, 0] - affinity).square().mean().backward()
        optimizer.step()
    state, action, affinity = draw(1000)
    error = (critic(state, action)[:, 0] - affinity).square().mean() / affinity.var()
    assert error < 0.1


def test_target_moves_towards_its_source() -> None:
    """The first MusicBox's target critic never moved."""
    source, target = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    wanted = [
        0.9 * old.detach() + 0.1 * new.detach()
        for old, new in zip(target.parameters(), source.parameters(), strict=True)
    ]
    follow(target, source, 0.1)
    for moved, value in zip(target.parameters(), wanted, strict=True):
        torch.testing.assert_close(moved.detach(), value)
