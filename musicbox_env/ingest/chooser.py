"""Which whole sessions, and which of their plays, enter the dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.data.writing import PlayBlock
from musicbox_env.ingest.plays import Rejects
from musicbox_env.ingest.time_split import LEFT_OUT, PARTS
from musicbox_env.schema import STORED_PLAY_COLUMNS

MIN_SESSION_PLAYS: Final = 2
"""A session needs a play to show and one to recommend for."""
DUPLICATE_SESSION: Final = "duplicate session (each of its plays)"


class SessionChooser:
    """Filters sessions, and counts what each rule left out.

    Attributes:
        rejects: Plays of sessions that came before.
        counts: Sessions, and plays, by the rule that left them out.
    """

    def __init__(
        self,
        incomplete: Literal["keep", "drop"],
        session_length: int | None,
        popular: Collection[str] | None,
    ) -> None:
        """Set the rules.

        Args:
            incomplete: What becomes of sessions with missing plays.
            session_length: The only number of plays that is kept, if any is set.
            popular: Ids of the only tracks that are kept, if any are set.
        """
        self.rejects = Rejects()
        self.counts: Counter[str] = Counter()
        self._incomplete, self._session_length, self._popular = incomplete, session_length, popular
        self._dictionary = pa.array([], pa.string())
        self._vocabulary: npt.NDArray[np.object_] = np.empty(0, object)

    def choose(
        self,
        batch: pa.RecordBatch,
        again: npt.NDArray[np.bool_],
        split: npt.NDArray[np.uint8] | None = None,
    ) -> PlayBlock:
        """Filter a batch of `assembly.BLOCK_SCHEMA`.

        Args:
            batch: Whole sessions.
            again: Which of them came before ``(sessions,)``.
            split: Codes of them where sessions are split by time: see `time_split`.

        Sessions are evaluated by all their logged plays first; only then do plays fall out. The
        other order would keep sessions for how many of their songs are popular.
        """
        ids = batch["session_id"].dictionary
        session = batch["session_id"].indices.to_numpy()
        lengths = np.bincount(session, minlength=len(ids))
        starts = np.cumsum(lengths) - lengths
        self.counts["duplicate_sessions"] += int(again.sum())
        if again.any():
            self.rejects.add(batch["line"].to_numpy()[again[session]], DUPLICATE_SESSION)
        kept = ~again
        whole = lengths == batch["session_length"].to_numpy()[starts]
        self.counts["incomplete_sessions"] += int((kept & ~whole).sum())
        if self._incomplete == "drop":
            kept &= whole
        if self._session_length is not None:
            kept = self._keep(kept, lengths == self._session_length, "other_length", lengths)
        keep_play, left = None, lengths * kept
        if self._popular is not None:
            keep_play = self._popular_plays(batch["track_id"], kept[session], self._popular)
            left = np.bincount(session[keep_play], minlength=len(ids))
        kept = self._keep(kept, left >= MIN_SESSION_PLAYS, "short", left)
        if split is not None:
            for rule, code in LEFT_OUT.items():
                kept = self._keep(kept, split != code, rule, left)
            for name, code in PARTS.items():
                self.counts[name] += int((kept & (split == code)).sum())
        self.counts["sessions_kept"] += int(kept.sum())
        if keep_play is not None or not kept.all():
            keep_play = kept[session] if keep_play is None else keep_play & kept[session]
        given = {n: batch[n] for n in batch.schema.names if n in STORED_PLAY_COLUMNS}
        columns = {n: of.to_numpy() for n, of in given.items() if of.null_count < len(of)}
        columns["track"] = batch["track_id"].indices.to_numpy()
        if keep_play is not None:
            columns = {n: of[keep_play] for n, of in columns.items()}
        return PlayBlock(
            session_ids=ids.filter(pa.array(kept)),
            lengths=left[kept],
            vocabulary=self._tracks(batch["track_id"].dictionary),
            columns=columns,
            split=None if split is None else split[kept],
        )

    def _tracks(self, dictionary: pa.StringArray) -> npt.NDArray[np.object_]:
        """Ids of tracks, the same array for batches with the same dictionary."""
        if not dictionary.equals(self._dictionary):
            self._dictionary, self._vocabulary = dictionary, _strings(dictionary)
        return self._vocabulary

    def _keep(
        self,
        kept: npt.NDArray[np.bool_],
        fits: npt.NDArray[np.bool_],
        rule: str,
        plays: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.bool_]:
        """The sessions that fit as well, and the count of the others and their plays."""
        self.counts[f"{rule}_sessions"] += int((kept & ~fits).sum())
        self.counts[f"{rule}_plays"] += int(plays[kept & ~fits].sum())
        return kept & fits

    def _popular_plays(
        self,
        tracks: pa.DictionaryArray,
        keep_play: npt.NDArray[np.bool_],
        among: Collection[str],
    ) -> npt.NDArray[np.bool_]:
        popular = np.array([t in among for t in tracks.dictionary.to_pylist()], bool)
        of_play = popular[tracks.indices.to_numpy()]
        self.counts["unpopular_plays"] += int((keep_play & ~of_play).sum())
        return keep_play & of_play


def _strings(ids: pa.StringArray) -> npt.NDArray[np.object_]:
    return ids.to_numpy(zero_copy_only=False).astype(object)
