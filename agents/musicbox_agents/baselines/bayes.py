"""Bayes: the posterior of a session's taste where the law of synthetic data is known.

It knows the law, the tracks' true vectors and how tastes are distributed, but neither the listener
nor the tracks' quality, for which it takes the rates counted in training. What separates it from
the skyline is what ten songs cannot tell about a listener and what counts cannot tell about a
track; what separates an agent that learns from it is what better learning could still gain.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit, logit, logsumexp, softmax

from musicbox_agents.base import Observation, as_batch, require_ranges
from musicbox_agents.baselines.base import SlateAgent, SlateSettings, in_chunks
from musicbox_agents.baselines.planner import PlannerSettings, planned
from musicbox_agents.slates import Batch, Slates, nearest
from musicbox_env.data.summaries import repeats
from musicbox_env.schema import CONTEXT_TYPES, is_skip
from musicbox_env.synthetic.law import ListenerState
from musicbox_env.synthetic.outlook import Outlook
from musicbox_env.synthetic.truth import GroundTruth

Array = npt.NDArray[np.float64]

SHORTLIST: Final = 512
"""Songs among which slates are composed, the best wear aside, where songs wear out."""
SONGS_SEEN: Final = 1_000
"""Songs of a session that it reads: all, or else it took those recommended for those chosen."""
_SHUFFLE, _FIRST_CONTEXT_TYPE = 3, 4
"""Where shuffle and the one-hot context type stand in the observation's context."""


@dataclass(frozen=True)
class BayesSettings(SlateSettings):
    """Settings of `BayesAgent`.

    Attributes:
        draws: Listeners of training sessions taken as draws from the prior.
        plausible: Of these, those likeliest by the songs played, whose levels are looked at.
        use_levels: Whether skips and keeps tell of the taste, besides the songs played.
        look_ahead: Whether, where songs wear out, slates are planned (`planner`), as if what it
            estimates were so. It shows what looking ahead is worth to who must learn the listener.
    """

    draws: int = 5_000
    plausible: int = 100
    use_levels: bool = True
    look_ahead: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, {"draws": (1, np.inf), "plausible": (1, np.inf)})


class BayesAgent(SlateAgent):
    """Importance-weights training listeners by the likelihood of what a session shows.

    Training sessions' true tastes t (and propensities) are draws from the prior. A session that
    shows the distinct songs j with levels l weighs each by::

        prod_j P(j | t) P(skip or not | t, propensity, history)
        P(j | t) = w_j exp(kappa t . v_j) / sum_i w_i exp(kappa t . v_i)     (truth.SongChoice)

    and tracks are ranked by estimated quality plus the law's taste times E[t] . v. Where songs wear
    out, it knows how: the slate is composed song by song, each the best after all before it.

    Only the songs shown at the start were the listener's choice; of those recommended since, only
    the levels tell, hence the state of `predict`: how many songs each session had when it began.
    """

    name = "bayes"
    knows_law = True
    Settings = BayesSettings
    settings: BayesSettings

    @property
    def env_options(self) -> dict[str, Any]:
        """As of `SlateAgent`, with all that long sessions heard."""
        return {**super().env_options, "history_length": SONGS_SEEN}

    def set_up(self) -> None:
        """Draw listeners of training sessions.

        Raises:
            FileNotFoundError: The dataset has no known law.
        """
        self.truth = GroundTruth.open(self.dataset)
        sessions = self.dataset.sessions.sessions_in("train")
        if len(sessions) > self.settings.draws:
            rng = np.random.default_rng(self.seed)
            sessions = np.sort(rng.choice(sessions, self.settings.draws, replace=False))
        self._tastes = np.asarray(self.truth.session_taste[sessions])
        self._propensities = np.asarray(self.truth.session_propensity[sessions], np.float64)

    @cached_property
    def _log_normalizer(self) -> Array:
        """``log sum_i w_i exp(kappa t . v_i)`` of each draw, ``(draws,)``."""
        truth, kappa = self.truth, self.truth.choice.kappa
        log_weight = np.log(np.maximum(truth.track_weight, 1e-30))

        def of_some(part: Batch) -> Array:
            affinity = part["taste"] @ truth.track_vectors.T
            return logsumexp(kappa * affinity + log_weight, axis=1)

        found = in_chunks({"taste": self._tastes}, self.num_tracks, of_some)
        return found.astype(np.float64)

    @cached_property
    def quality(self) -> Array:
        """Estimate of the tracks' quality ``(num_tracks,)`` from their training rate.

        The rate is shrunken as `Catalog.skip_rate` does, but with the weight that the law
        needs: a rate of mean m varies with quality of variance s**2 by (m (1 - m) s)**2, and a beta
        prior of that variance weighs ``1 / (m (1 - m) s**2) - 1`` plays.
        """
        plays, skips = self.dataset.catalog.plays(), self.dataset.catalog.skips()
        mean = skips.sum() / plays.sum()
        weight = 1 / (mean * (1 - mean) * max(self.truth.track_quality.var(), 1e-9)) - 1
        listened = -logit((skips + weight * mean) / (plays + weight))
        return listened - listened.mean()

    @cached_property
    def _items(self) -> Array:
        """True vectors and estimated quality ``(num_tracks, d + 1)``."""
        return np.column_stack([self.truth.track_vectors, self.quality])

    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray, Any]:
        """See `Agent.predict`; the state is the number of songs shown, ``(n,)``."""
        batch, single = as_batch(observation)
        count = (batch["tracks"] >= 0).sum(axis=1)
        begun = np.zeros(len(count), np.bool_) if episode_start is None else episode_start
        shown = count if state is None else np.where(begun, count, state)
        actions = self.act({**batch, "shown": shown}, deterministic=deterministic)
        return (actions[0] if single else actions), shown

    def act(self, batch: Batch, *, deterministic: bool) -> Slates:
        """See `Agent.act`."""
        seen = slice((batch["tracks"] >= 0).any(axis=0).argmax(), None)
        heard = {name: batch[name][:, seen] for name in ("tracks", "levels")}
        return in_chunks({**batch, **heard}, len(self._tastes), self._slates)

    def _slates(self, batch: Batch) -> Slates:
        taste = self.posterior_taste(batch)
        queries = np.column_stack([self.truth.law.taste * taste, np.ones(len(taste))])
        if self.truth.satiation is None:
            return self._nearest(batch, queries, self._items)
        candidates = batch.get("candidates")
        if candidates is None:
            candidates = nearest(batch, queries, self._items, min(SHORTLIST, self.num_tracks))
        listened = np.einsum("nd,ncd->nc", queries, self._items[np.maximum(candidates, 0)])
        outlook = Outlook.of(
            self.truth.law,
            self.truth.satiation,
            self.truth.law.after(batch["levels"]),
            heard=batch["tracks"],
            candidates=candidates,
            logits=-listened,
            vectors=self._vectors,
        )
        if not self.settings.look_ahead:
            return outlook.greedy(self.slate_size)
        size, planner = self.slate_size, PlannerSettings()
        sessions = range(len(outlook.logits))
        return np.stack([planned(outlook, i, size, planner.depth, planner) for i in sessions])

    @cached_property
    def _vectors(self) -> npt.NDArray[np.float32]:
        """True vectors ``(num_tracks, d)``, as kernels take them."""
        return np.asarray(self.truth.track_vectors)

    def posterior_taste(self, batch: Batch) -> Array:
        """Posterior mean of the taste ``(n, d)``."""
        log_weights = self._log_choice(batch)
        plausible = min(self.settings.plausible, log_weights.shape[1])
        draws = np.argpartition(-log_weights, plausible - 1, axis=1)[:, :plausible]
        log_weights = np.take_along_axis(log_weights, draws, axis=1)
        if self.settings.use_levels:
            log_weights = log_weights + self._log_levels(batch, draws)
        weights = softmax(log_weights, axis=1)
        return np.einsum("np,npd->nd", weights, self._tastes[draws])

    def _log_choice(self, batch: Batch) -> Array:
        """Log-likelihood of the distinct songs shown under each draw ``(n, draws)``."""
        tracks = batch["tracks"]
        number = np.cumsum(tracks >= 0, axis=1)
        chosen = (tracks >= 0) & (number <= batch["shown"][:, None]) & ~repeats(tracks)
        total = np.einsum("nh,nhd->nd", chosen, self.truth.track_vectors[tracks])
        log_likelihood = self.truth.choice.kappa * total @ self._tastes.T
        return log_likelihood - chosen.sum(axis=1)[:, None] * self._log_normalizer

    def _log_levels(self, batch: Batch, draws: npt.NDArray[np.int64]) -> Array:
        """Log-likelihood of skips and keeps under the given draws ``(n, p)``, likewise."""
        law = self.truth.law
        tracks, levels = batch["tracks"], batch["levels"]
        again = repeats(tracks)
        session = self._session_logit(batch)[:, None] + self._propensities[draws]
        state = ListenerState.begin(len(tracks))
        wear = self._wear_logit(tracks)
        total = np.zeros(draws.shape)
        for place in range(tracks.shape[1]):
            track = np.maximum(tracks[:, place], 0)
            vectors = self.truth.track_vectors[track]
            affinity = np.einsum("npd,nd->np", self._tastes[draws], vectors)
            song = law.track_logit(self.quality[track][:, None], affinity, again[:, place, None])
            skip_logit = law.skip_logit(state, wear[:, place], session + song)
            sign = np.where(is_skip(levels[:, place]), 1.0, -1.0)[:, None]
            heard = (tracks[:, place] >= 0)[:, None]
            total += np.where(heard, log_expit(sign * skip_logit), 0.0)
            state = law.update(state, levels[:, place])
        return total

    def _wear_logit(self, tracks: npt.NDArray[np.integer]) -> Array:
        """What wear added to the skip logit of each song heard ``(n, h)``."""
        satiation = self.truth.satiation
        if satiation is None:
            return np.zeros(tracks.shape)
        wear = satiation.wear_in_order(tracks[:, :0], tracks, self._vectors)
        return satiation.logit(wear, np.cumsum(tracks >= 0, axis=1) - (tracks >= 0))

    def _session_logit(self, batch: Batch) -> Array:
        """What context type and shuffle, as observed last, add to the skip logit ``(n,)``."""
        one_hot = batch["context"][:, _FIRST_CONTEXT_TYPE:][:, : len(CONTEXT_TYPES)]
        context = np.where(one_hot.any(axis=1), one_hot.argmax(axis=1), -1)
        shuffle = batch["context"][:, _SHUFFLE]
        code = np.where(shuffle > 0, 1, np.where(shuffle < 0, 0, -1))
        return self.truth.law.session_logit(np.zeros(len(code)), context, code)
