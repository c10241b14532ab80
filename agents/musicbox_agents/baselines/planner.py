"""Planner: looks ahead on the exact law, where the order of songs matters.

It knows what no recommender can, the evaluator's own probabilities, and searches them: what remains
between it and the oracle that takes the best next song is what looking ahead is worth.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_agents.base import require_ranges
from musicbox_agents.baselines.base import SlateSettings
from musicbox_agents.baselines.bounds import SHORTLIST, SkylineAgent
from musicbox_agents.slates import Slates, best_candidates
from musicbox_env.data.summaries import NEUTRAL, faded
from musicbox_env.kernels import compiled, holds
from musicbox_env.schema import require_known
from musicbox_env.simulator.dynamics import Simulator
from musicbox_env.synthetic.outlook import Outlook

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Persistence = tuple[float, float, float]
"""`ListeningLaw.previous_skip`, ``running_skip`` and ``running_weight``."""
REACHES: Final = ("session", "song", "slate", "nothing")


@dataclass(frozen=True)
class PlannerSettings(SlateSettings):
    """Settings of `PlannerAgent`.

    Attributes:
        candidates: Songs among which it plans, a slate or more: the best ones, wear aside. Where
            taste decides much these are alike and wear each other out, and few of them leave
            nothing else to play.
        depth: Songs that it looks ahead, the slate's own included.
        beam: Slates in the making that are kept at each place.
        branch: Songs that each of them is continued with, for each foresight.
        foresight: How a roll-out goes on after the songs that are tried: with the lowest skip logit
            plus so much of the wear that the song is going to cause in the average good song. The
            best roll-out counts.
        good_songs: Songs over which that average is taken, the best ones, wear aside.
        reach: How far it reads wear, to measure what each step is worth: ``"session"`` looks ahead,
            ``"song"`` takes the best next song (as `SkylineAgent`), ``"slate"`` the songs that are
            best when the slate begins, ``"nothing"`` is blind to wear.
    """

    candidates: int = SHORTLIST
    depth: int = 16
    beam: int = 2
    branch: int = 6
    foresight: tuple[float, ...] = (0.0, 0.5)
    good_songs: int = 80
    reach: str = "session"

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("depth", "beam", "branch", "good_songs")
        ranges = dict.fromkeys(names, (1.0, np.inf))
        require_ranges(self, {**ranges, "candidates": (self.slate_size, np.inf)})
        require_known("reach", self.reach, REACHES)
        if not self.foresight or not all(0 <= weight < np.inf for weight in self.foresight):
            raise ValueError(
                f"Planner setting foresight is {self.foresight}; give finite numbers of 0 or more."
            )


class PlannerAgent(SkylineAgent):
    """Oracle that looks ahead: a beam of slates, each judged by roll-outs to the session's end.

    Roll-outs use exact skip probabilities given the songs before; in place of how far these are
    heard stands their chance to be skipped, which changes all songs alike and hardly their order.
    It plans anew with every slate, from what was really heard. Roll-outs go ``depth`` songs far.

    Where no order of songs beats another, or the listener cannot say, it is `SkylineAgent`.
    """

    name = "planner"
    Settings = PlannerSettings
    settings: PlannerSettings

    def compose(self, simulator: Simulator, rows: npt.NDArray, outlook: Outlook) -> Slates:
        """Plan each session's slate; see `SkylineAgent.compose`."""
        if self.settings.reach == "song":
            return super().compose(simulator, rows, outlook)
        if self.settings.reach != "session":
            blind = self.settings.reach == "nothing"
            wear = 0.0 if blind else outlook.satiation.strength * outlook.wear
            return best_candidates(outlook.candidates, -(outlook.logits + wear), self.slate_size)
        slates = outlook.greedy(self.slate_size)
        left = simulator.remaining[rows]
        for i in range(len(rows)):
            heard = min(self.slate_size, int(left[i]))  # of a last slate not all may be heard
            first = planned(outlook, i, heard, int(left[i]), self.settings)
            others = slates[i][~np.isin(slates[i], first)]
            slates[i] = np.concatenate([first, others, slates[i]])[: self.slate_size]
        return slates


def planned(
    outlook: Outlook, session: int, size: int, remaining: int, settings: PlannerSettings
) -> npt.NDArray[np.int64]:
    """The slate of one session ``(size,)``, of whose songs so many remain to be played."""
    wears = outlook.satiation
    some = np.argsort(outlook.logits[session], kind="stable")[: settings.candidates]
    lag = wears.lag
    rows = np.concatenate([np.arange(lag), lag + some])
    influence = outlook.influence(session)[rows][:, some]
    ahead = influence[lag:, : settings.good_songs].mean(axis=1, dtype=np.float64)
    foresight = np.outer(settings.foresight, ahead) * wears.strength / (1.0 - wears.decay)
    depth = max(min(settings.depth, remaining), size)
    law, state = outlook.law, outlook.state
    chosen = plan(
        outlook.logits[session][some],
        outlook.wear[session][some],
        influence,
        _usual(outlook, session, depth),
        (law.previous_skip, law.running_skip, law.running_weight),
        (float(state.previous[session]), float(state.running[session])),
        (wears.strength, wears.decay),
        foresight,
        (size, settings.beam, settings.branch),
    )
    tracks = outlook.candidates[session][some]
    return np.where(chosen >= 0, tracks[np.maximum(chosen, 0)], 0)


def _usual(outlook: Outlook, session: int, depth: int) -> Array:
    """What the next places add to every song's skip logit ``(depth,)``."""
    heard = outlook.state.heard[session] + np.arange(depth)
    position = np.asarray(outlook.law.position)
    at_place = position[np.minimum(heard, len(position) - 1)]
    return at_place + outlook.satiation.logit(0.0, heard)


@compiled
def plan(
    logits: Array,
    wear: Array,
    influence: Floats,
    usual: Array,
    persistence: Persistence,
    skipped: tuple[float, float],
    wears: tuple[float, float],
    foresight: Array,
    sizes: tuple[int, int, int],
) -> Ints:
    """Choose a slate by beam search over its songs and roll-outs after them.

    Args:
        logits: Of c candidates, wear aside ``(c,)``; infinite where one may not be played.
        wear: Of each as the next song ``(c,)``.
        influence: As `Outlook.influence`, ``(lag + c, c)``.
        usual: What each place adds to every song's logit ``(depth,)``.
        persistence: Of the law.
        skipped: `ListenerState.previous` and ``running``.
        wears: Strength and decay of the satiation.
        foresight: What each kind of roll-out adds to the logits to choose by ``(f, c)``.
        sizes: Songs of the slate, beam and branch.

    Returns:
        Candidates in order ``(size,)``, -1 where none is left.
    """
    size, beam, branch = sizes
    strength = wears[0]
    c, lag, depth = len(logits), len(influence) - len(logits), len(usual)
    free, worn = np.empty((beam, c)), np.empty((beam, c))
    waiting = np.zeros((beam, lag + depth), np.int64)
    chosen = np.full((beam, size), -1, np.int64)
    so_far = np.zeros((beam, 3))  # expected skips, previous, running
    free[0], worn[0] = logits, wear
    waiting[0, :lag] = np.arange(lag)
    so_far[0, 1], so_far[0, 2] = skipped
    kept = 1
    for place in range(size):
        parent, song = _tries(free[:kept], worn[:kept], strength, foresight, branch)
        if len(song) == 0:
            break
        score = np.full(len(song), np.inf)
        for t in range(len(song)):
            b = parent[t]
            for f in range(len(foresight)):
                mine = free[b].copy(), worn[b].copy(), waiting[b].copy(), so_far[b].copy()
                rank, following = free[b] + foresight[f], song[t]
                for later in range(place, depth):
                    if following >= 0:
                        following = _hear(
                            following, later, rank, influence, usual, persistence, wears, mine
                        )
                score[t] = min(score[t], mine[3][0])
        best = np.argsort(score)[:beam]
        kept = len(best)
        before = free.copy(), worn.copy(), waiting.copy(), so_far.copy()
        songs_before = chosen.copy()
        for k in range(kept):
            b, j = parent[best[k]], song[best[k]]
            chosen[k] = songs_before[b]
            chosen[k, place] = j
            free[k], worn[k], waiting[k] = before[0][b], before[1][b], before[2][b]
            so_far[k] = before[3][b]
            mine = free[k], worn[k], waiting[k], so_far[k]
            _hear(j, place, free[k].copy(), influence, usual, persistence, wears, mine)
    return chosen[0]


@compiled
def _tries(
    free: Array, worn: Array, strength: float, foresight: Array, branch: int
) -> tuple[Ints, Ints]:
    """Songs to continue slates ``(b, c)`` with, the best by each foresight: whose, and which."""
    most = len(free) * branch * len(foresight)
    parent, song = np.zeros(most, np.int64), np.zeros(most, np.int64)
    tried = 0
    for b in range(len(free)):
        first = tried
        for f in range(len(foresight)):
            for j in np.argsort(free[b] + strength * worn[b] + foresight[f])[:branch]:
                if free[b, j] < np.inf and not holds(song[first:tried], j):
                    parent[tried], song[tried] = b, j
                    tried += 1
    return parent[:tried], song[:tried]


@compiled
def _hear(
    song: int,
    place: int,
    rank: Array,
    influence: Floats,
    usual: Array,
    persistence: Persistence,
    wears: tuple[float, float],
    mine: tuple[Array, Array, Ints, Array],
) -> int:
    """Hear a candidate at a place: expected skips, persistence and wear go on, in place.

    Args:
        song: The candidate.
        place: Songs planned before it.
        rank: Logits to choose the next song by, wear aside ``(c,)``; changed.
        influence: As of `plan`, like ``usual``, ``persistence`` and ``wears``.
        usual: See there.
        persistence: See there.
        wears: See there.
        mine: What is free, wear, rows of the influence in the order heard, and expected skips,
            previous and running; changed.

    Returns:
        The best song to follow, -1 where none is left.
    """
    free, worn, waiting, so_far = mine
    strength, decay = wears
    of_previous, of_running, weight = persistence
    logit = usual[place] + free[song] + strength * worn[song]
    logit += of_previous * (so_far[1] - NEUTRAL) + of_running * (so_far[2] - NEUTRAL)
    chance = 1.0 / (1.0 + np.exp(-logit))
    so_far[0] += chance
    so_far[1], so_far[2] = chance, faded(so_far[2], weight, chance)
    free[song] = rank[song] = np.inf
    waiting[len(influence) - len(free) + place] = len(influence) - len(free) + song
    felt = influence[waiting[place]]
    best, lowest = -1, np.inf
    for j in range(len(worn)):
        worn[j] = decay * worn[j] + felt[j]
        after = rank[j] + strength * worn[j]
        if after < lowest:
            best, lowest = j, after
    return best
