"""Turn listening logs or streaming histories into a dataset folder.

Formats are recognized from the content: CSV, JSON, Parquet and workbooks, packed or not, folders
and globs of those, in the schema of the Music Streaming Sessions Dataset; or what Spotify and
other services hand out, as downloaded; or any table of plays, with --map. Rows that cannot be are
listed in rejects.csv. A run that was stopped goes on where it was.

Sessions are split by hash, or with --split time by when they were: training on the earliest, test
on the latest, with a --gap between.

Of a history the dataset keeps no user name, address, country, device, date or time of a play.
"""

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, arg

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.splits import TIME
from musicbox_env.errors import InputError
from musicbox_env.ingest import pipeline as ingest
from musicbox_env.ingest.histories.mapping import mapping_lines
from musicbox_env.workers import Piece, Spread
from musicbox_experiments.cluster.tasks import Task, Where, open_workers, require_address
from musicbox_experiments.data.describe import time_split_lines
from musicbox_experiments.data.enough import cautions
from musicbox_experiments.text import say


@dataclass(frozen=True)
class IngestConfig(ingest.IngestConfig):
    """What to read, and what to keep of it.

    Attributes:
        sources: Listening logs, streaming histories or tables of plays: files, folders or globs.
        embeddings: Whether embeddings of the tracks are fitted.
        embedding_files: Parquet files of embeddings of the tracks (a track's id and a list of
            numbers), each of which becomes a space under the file's name.
    """

    sources: Annotated[
        tuple[str, ...], Positional, arg(metavar="LOG ...", help_behavior_hint="(required)")
    ]
    embeddings: FlagCreatePairsOff[bool] = True
    embedding_files: Annotated[tuple[str, ...], arg(name="embeddings")] = ()
    cluster: str | None = None
    """Read the logs on Ray, whose nodes find them under the same paths; see `musicbox compare
    --help`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_address(self.cluster)


def run(config: IngestConfig) -> None:
    """Ingest logs and say what came out."""
    cluster = config.cluster
    spread = None if cluster is None else partial(_spread_on, cluster, config)
    out = ingest.ingest(config, spread)
    dataset = Dataset(out)
    about = dataset.about
    say(*history_account(about), *rejected_rows(about, out), *passed_over(about))
    if about["split"].get("kind") == TIME:
        say("Split " + "\n  ".join(time_split_lines(about["split"])))
    if "history" in about:
        say("What it is too small for:")
        say("\n".join(cautions(dataset) or ["nothing that shows in the counts"]))
    say(
        f"{out}: {about['sessions']:,} sessions, {about['plays']:,} plays, "
        f"{about['tracks']:,} tracks; {about['rejected']['rows']:,} of {about['rows_read']:,} rows "
        f"rejected. `musicbox describe {out}` says more."
    )


@contextmanager
def _spread_on(cluster: str, config: IngestConfig) -> Iterator[Spread]:
    """Does pieces of the work on Ray, each a task, while the block runs."""
    reports: list[Callable[[int], object]] = []
    where = Where(config.workers or 0, cluster, config.out)
    with open_workers(where, lambda done: reports[-1](done), most=0) as workers:

        def spread(
            pieces: Sequence[Piece], progress: Callable[[int], object]
        ) -> Iterator[tuple[int, Any]]:
            reports.append(progress)
            numbers = {piece.name: number for number, piece in enumerate(pieces)}
            for piece in pieces:
                arguments = piece.work, piece.finds, *piece.arguments
                task = Task(piece.name, _do, arguments, piece.reads, adds_to=piece.adds_to)
                workers.submit(task)
            for task, result in workers.finished():
                yield numbers[task.name], result

        yield spread


def _do(work: Callable[..., Any], finds: Path | None, *arguments_and_progress: Any) -> Any:
    if finds is not None and not finds.exists():
        raise InputError(
            f"the node {socket.gethostname()} has no {finds}. Put the logs where all nodes find "
            "them under the same path, and name that path."
        )
    return work(*arguments_and_progress)


def history_account(about: Mapping[str, Any]) -> list[str]:
    """What became of the rows of listening histories; nothing where there were none."""
    if "history" not in about:
        return []
    history = about["history"]
    sessions = history["sessions"]
    lines = []
    for name, mapping in history["read_as"].items():
        lines += [f"Read as {name}:", *mapping_lines(mapping)]
    rows = {**history["rows"], **history["overlaps"]}
    lines += ["Rows:", *_counted({what: count for what, count in rows.items() if count})]
    if merged := history.get("merged_ids"):
        lines.append(
            f"Songs: {merged:,} further ids of songs with the same artist and title merged."
        )
    lines.append(
        f"Sessions: at most {sessions['max_gap']:g} s without play between two tracks, "
        f"{sessions['min_plays']} to {sessions['max_plays']} plays."
    )
    lines += [*_counted(sessions["found"]), "Listen levels by what they rest on:"]
    evidence = history["levels"]["evidence"]
    lines += _counted({f"{e['share']:>6.1%}  {what}": e["plays"] for what, e in evidence.items()})
    lines += [f"Note: {note}" for note in history["notes"]]
    return lines


def rejected_rows(about: Mapping[str, Any], folder: Path) -> list[str]:
    """Why rows were rejected, how many, and the file that lists them; nothing where none were."""
    parts = [about, about.get("track_features", {})]
    reasons = sum((Counter(part.get("rejected", {}).get("reasons")) for part in parts), Counter())
    if not reasons:
        return []
    listed = f"Rejected rows, listed in {folder / 'rejects.csv'}:"
    return [listed, *_counted(dict(reasons.most_common()))]


def passed_over(about: Mapping[str, Any]) -> list[str]:
    """The files and tables that were not read, each with the reason; nothing where all were."""
    of = about["passed_over"]
    if not of["files"]:
        return []
    more = of["files"] - len(of["names"])
    told = zip(of["names"], of["why"], strict=True)
    return [
        f"Passed over {of['files']:,}:",
        *(f"  {name}, which {why}" for name, why in told),
        *([f"  and {more:,} more"] if more else []),
    ]


def _counted(counts: Mapping[str, int]) -> list[str]:
    return [f"{count:>12,}  {what}" for what, count in counts.items()]
