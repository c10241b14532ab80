"""Turn listening logs in the MSSD schema into a dataset folder.

Formats are told from the content: CSV, gzip, tar, zip, Parquet, folders and globs of those. Rows
that cannot be are listed in rejects.csv. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from tyro.conf import Positional

from musicbox_env import ingest
from musicbox_env.dataset import Dataset


@dataclass(frozen=True)
class IngestConfig(ingest.IngestConfig):
    """What to read, and what to keep of it.

    Attributes:
        sources: Listening logs in the MSSD schema: files, folders or globs.
    """

    sources: Positional[tuple[str, ...]]


def run(config: IngestConfig) -> None:
    """Ingest logs and say what came out."""
    out = ingest.ingest(config)
    about = Dataset(out).about
    print(
        f"{out}: {about['sessions']:,} sessions, {about['plays']:,} plays, "
        f"{about['tracks']:,} tracks; {about['rejected']['rows']:,} of {about['rows_read']:,} rows "
        f"rejected. `musicbox describe {out}` says more."
    )


if __name__ == "__main__":
    from experiments.cli import run_command

    run_command("ingest", sys.argv[1:])
