"""Agents that act by the mean of the songs heard, by the songs' keep rates, or by both."""

import logging
from dataclasses import dataclass

import numpy as np

from musicbox_agents.baselines.base import ProtoActionAgent, ProtoActionSettings, kept_or_all
from musicbox_agents.slates import Batch, Floats
from musicbox_env.data.dataset import RATE_SUFFIX
from musicbox_env.data.summaries import mean_vectors

_log = logging.getLogger(__name__)


class ContentAgent(ProtoActionAgent):
    """Songs that sound like those kept: the mean content vector of the kept songs.

    Where nothing was kept, the mean of all songs heard. A dataset without track features has no
    content embedding; then the best that it has takes its place, and a log line says so.
    """

    name = "content"

    def set_up(self) -> None:
        """Say so if the embedding is not of content."""
        if self.embedding != "content":
            _log.warning(
                "The content agent uses the embedding %r: by its settings, or since %s has none of "
                "content.",
                self.embedding,
                self.dataset.folder,
            )

    def _default_embedding(self) -> str:
        names = self.dataset.embedding_names
        return "content" if "content" in names else self.dataset.best_embedding

    def _proto_actions(self, batch: Batch) -> Floats:
        mean = mean_vectors(self.vectors, batch["tracks"], kept_or_all(batch))
        if self.embedding.endswith(RATE_SUFFIX):
            return np.pad(mean, ((0, 0), (0, 1)))
        return mean


class BestRateAgent(ProtoActionAgent):
    """The tracks of highest keep rate, whoever listens: the unit vector on the rate axis.

    The rate is the catalog's, shrunken and counted on training plays. The rate column ends at 3
    standard deviations; the few tracks beyond are equal, and the more played come first.
    """

    name = "best-rate"

    def _proto_actions(self, batch: Batch) -> Floats:
        check_rate_axis(self)
        axis = np.zeros((len(batch["tracks"]), self.vectors.shape[1] + 1))
        axis[:, -1] = 1.0
        return axis


@dataclass(frozen=True)
class PlayedRateSettings(ProtoActionSettings):
    """Settings of `PlayedRateAgent`.

    Attributes:
        rate_weight: Weight of the rate column, in units of the mean played vector.
    """

    rate_weight: float = 0.4


class PlayedRateAgent(ProtoActionAgent):
    """Tracks like those played with a high keep rate: two lines, and hard to beat.

    The proto-action is (mean vector of all songs heard, weight), so a track scores its mean cosine
    with these songs plus the weighted rate column. Skipped songs count like kept ones: what a
    listener plays shows their taste, and what they skip of it hardly does.
    """

    name = "played-rate"
    Settings = PlayedRateSettings
    settings: PlayedRateSettings

    def _proto_actions(self, batch: Batch) -> Floats:
        check_rate_axis(self)
        mean = mean_vectors(self.vectors, batch["tracks"], batch["tracks"] >= 0)
        return np.pad(mean, ((0, 0), (0, 1)), constant_values=self.settings.rate_weight)


def check_rate_axis(agent: ProtoActionAgent) -> None:
    """Refuse an embedding without the rate column.

    Raises:
        ValueError: With the name of the embedding that has it.
    """
    if not agent.embedding.endswith(RATE_SUFFIX):
        raise ValueError(
            f"The {agent.name} agent was given the embedding {agent.embedding!r}; it needs the "
            f"rate column: {agent.embedding + RATE_SUFFIX!r}."
        )
