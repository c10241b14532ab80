"""What listeners said of songs, likes and dislikes, counted for the catalog on training alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from musicbox_env.schema import OPINION_COUNTS, OPINIONS

if TYPE_CHECKING:  # slow to import, and an environment needs none of it
    import pandas as pd

OPINION_SCHEMA: Final = pa.schema(
    [("session_id", pa.string()), ("track_id", pa.string()), ("opinion", pa.string())]
)
"""An opinion: the session in which it was given, the song, one of `schema.OPINIONS`."""


def opinion_counts(folder: Path, opinions: pa.Table) -> pd.DataFrame:
    """Opinions given in training sessions, by song and fold.

    Args:
        folder: Dataset folder whose sessions and their splits are written.
        opinions: Of `OPINION_SCHEMA`; those of sessions that the folder does not hold are left out.

    Returns:
        A row a song: ``track_id`` and the columns of `schema.OPINION_COUNTS`.
    """
    import pandas as pd

    ids = pq.read_table(folder / "sessions/ids.parquet")["session_id"]
    split = np.load(folder / "sessions/split.npy", allow_pickle=False)
    found = pc.call_function(
        "index_in", [opinions["session_id"]], pc.SetLookupOptions(ids.combine_chunks())
    )
    row = found.fill_null(-1).to_numpy()
    fold = np.where(row >= 0, split[row], len(split))
    told = opinions["opinion"].to_numpy()
    frame = pd.DataFrame({"track_id": opinions["track_id"].to_numpy()})
    for opinion in OPINIONS:
        for code, name in enumerate(("a", "b")):
            frame[f"{opinion}s_{name}"] = (told == opinion) & (fold == code)
    return frame.groupby("track_id", as_index=False)[list(OPINION_COUNTS)].sum()
