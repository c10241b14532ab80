"""Make synthetic sessions: a dataset folder with the truth behind it, or raw logs.

They look like the published figures of real sessions; --check prints both, side by side.
"""

import shlex
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from musicbox_env.data.dataset import Dataset
from musicbox_env.synthetic import calibration
from musicbox_env.synthetic.generator import synthesize, write_raw
from musicbox_env.synthetic.satiation import NONE
from musicbox_env.synthetic.world import TASTE_LEVELS, SyntheticConfig
from musicbox_experiments.text import say

RAW_FILES = ("sessions.csv.gz", "tracks.csv")


@dataclass(frozen=True)
class SynthesizeConfig:
    """What to make, and where.

    At least one of --out, --raw and --check says what for.
    """

    sessions: int = 20_000
    """Number of sessions."""
    tracks: int = 5_000
    """Size of the catalog."""
    seed: int = 0
    """Seed of everything that is drawn."""
    taste: str = "default"
    """How much personal taste decides what is skipped: none, default (an assumption, which the
    published figures neither prove nor refute), high (three times that, what personal choice could
    be worth), or a number, the law's own."""
    satiation: str = NONE
    """How songs wear out those like them, so that the order of songs matters: none, default, high,
    late (felt six songs later), or numbers, STRENGTH,DECAY,LAG. All but none are assumptions, which
    the published figures neither prove nor refute."""
    out: Path | None = None
    """Dataset folder to write, embeddings and truth included."""
    raw: Path | None = None
    """Folder for the same data as files of the published schema, sessions.csv.gz and tracks.csv."""
    check: bool = False
    """Print generated figures against published ones; exit code 1 if a required one is off."""
    overwrite: bool = False
    """Replace the folders if they exist."""

    def __post_init__(self) -> None:
        if not (self.out or self.raw or self.check):
            raise ValueError("Nothing to do: pass --out DIR, --raw DIR or --check.")
        self.synthetic()

    def synthetic(self) -> SyntheticConfig:
        """The generator's configuration."""
        taste: str | float = self.taste
        if self.taste not in TASTE_LEVELS:
            # SyntheticConfig refuses what is no number either, with a suggestion.
            with suppress(ValueError):
                taste = float(self.taste)
        return SyntheticConfig(self.sessions, self.tracks, self.seed, taste, self.satiation)


def run(config: SynthesizeConfig) -> None:
    """Write what was asked for, and check it."""
    synthetic = config.synthetic()
    if config.raw is not None:
        write_raw(synthetic, config.raw, overwrite=config.overwrite, progress=True)
        logs, tracks = (shlex.quote(str(config.raw / name)) for name in RAW_FILES)
        say(f"Make a dataset of it: musicbox ingest {logs} --tracks {tracks} --out data/raw")
    if config.out is not None:
        synthesize(synthetic, config.out, overwrite=config.overwrite, progress=True)
        about = Dataset(config.out).about
        say(
            f"{config.out}: {about['sessions']:,} sessions, {about['plays']:,} plays, "
            f"{about['tracks']:,} tracks."
        )
    if config.check:
        _check(synthetic, config.out)


def _check(synthetic: SyntheticConfig, folder: Path | None) -> None:
    """Print the figures; a dataset that is not to be kept is made for them."""
    if folder is not None:
        rows = calibration.compare(Dataset(folder))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            made = synthesize(synthetic, Path(temporary) / "data", embeddings=False, progress=True)
            rows = calibration.compare(Dataset(made))
    say(calibration.format_rows(rows))
    required = [row for row in rows if row.required]
    off = [row for row in required if not row.ok]
    say(f"{len(required) - len(off)} of {len(required)} required figures are within tolerance.")
    say(
        "They do not say how much taste or wear-out decides: worlds with none of either, and with "
        f"much, have the same figures. This one has taste {synthetic.taste} and satiation "
        f"{synthetic.satiation}, which are assumptions."
    )
    if off:
        say("Off: " + "; ".join(row.name for row in off))
        raise SystemExit(1)
