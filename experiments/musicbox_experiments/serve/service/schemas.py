"""What requests and answers hold: strict types, bounded sizes, no unknown names."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from musicbox_env.schema import CONTEXT_TYPES, NUM_LEVELS
from musicbox_experiments.serve.songs import LONGEST_QUERY

MOST_HEARD: Final = 500
MOST_EXCLUDED: Final = 1_000
MOST_SONGS: Final = 100
LONGEST_NAME: Final = 300
LONGEST_LABEL: Final = 1_100
"""Of an agent: no folder has a name of more, each byte shown as four letters."""
DAY_MS: Final = 86_400_000

SongName = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
"""A track id, a Spotify link or URI, or "Artist - Title", however it is spelled."""
Label = Annotated[str, Field(max_length=LONGEST_LABEL)]
"""Of an agent of the run."""
LevelName = Literal["skipped", "kept", "brief", "short", "most", "cut", "full"]


TEXT, NO_TEXT = "[text]", "[no text]"
"""Arms of a union, of which the value's type says which is meant; no part of a value's place."""


def _arm(value: object) -> str:
    return TEXT if isinstance(value, str) else NO_TEXT


class Described(BaseModel):
    """Tells /docs what its fields are."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Strict(Described):
    """Refuses names that it does not know, and values of another type."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Heard(Strict):
    """A song heard, and how far: exactly one of level, skipped, share and milliseconds."""

    song: SongName
    """A track id, a Spotify link or URI, or "Artist - Title", however it is spelled."""
    level: (
        Annotated[
            Annotated[LevelName, Tag(TEXT)]
            | Annotated[int, Field(ge=0, lt=NUM_LEVELS), Tag(NO_TEXT)],
            Discriminator(_arm),
        ]
        | None
    ) = None
    """A listen level from 0 (brief) to 4 (full), its name, or "skipped" or "kept"."""
    skipped: bool | None = None
    """Whether it was skipped: level 0, or else 4."""
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the song that was heard."""
    milliseconds: Annotated[int, Field(ge=0, le=DAY_MS)] | None = None
    """How long it was heard; a song of unknown length is taken to last three and a half minutes."""

    @model_validator(mode="after")
    def _says_how_far(self) -> Self:
        said = [self.level, self.skipped, self.share, self.milliseconds]
        if sum(value is not None for value in said) != 1:
            raise ValueError("give exactly one of level, skipped, share and milliseconds")
        return self


class Context(Strict):
    """Where and when; what is left out is unknown."""

    hour: Annotated[int, Field(ge=0, le=23)] | None = None
    """Hour of the listener's day."""
    premium: bool | None = None
    """Whether the listener pays."""
    shuffle: bool | None = None
    """Whether songs come in random order."""
    type: Literal[CONTEXT_TYPES] | None = None  # type: ignore[valid-type]
    """Where the songs are played from."""


class Session(Strict):
    """A listening session that goes on now."""

    heard: Annotated[
        Annotated[list[Heard], Field(max_length=MOST_HEARD), Tag(NO_TEXT)]
        | Annotated[str, Field(max_length=50_000), Tag(TEXT)],
        Discriminator(_arm),
    ] = []
    """Songs heard, oldest first; or one text of SONG:LEVEL, as `musicbox recommend` takes it."""
    context: Context = Context()
    """Where and when."""
    exclude: Annotated[list[SongName], Field(max_length=MOST_EXCLUDED)] = []
    """Further songs that shall not be recommended."""
    agent: Label | None = None
    """Who chooses: an agent of the run; left out, the one that /v1/about names first."""


class RecommendRequest(Session):
    """Asks for the songs to play next."""

    k: Annotated[int, Field(ge=1, le=MOST_SONGS)] = 3
    """How many."""


class PlaylistRequest(Session):
    """Asks for songs to play one after another."""

    n: Annotated[int, Field(ge=1, le=MOST_SONGS)] = 20
    """How many."""


class LookRequest(Strict):
    """Asks what agents would play now, and why.

    Either in a session of one's own (`heard`), or in one of the dataset (`listener`), whose first
    half is shown and whose simulated listener hears the songs of `played` one after another.
    """

    heard: Annotated[list[Heard], Field(max_length=MOST_HEARD)] = []
    """Songs heard in one's own session, oldest first."""
    listener: Annotated[int, Field(ge=0, le=2**31)] | None = None
    """Which session of the dataset, from 0 on."""
    played: Annotated[list[SongName], Field(max_length=MOST_SONGS)] = []
    """Songs that its simulated listener hears, in order."""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Of the simulated listener's random numbers."""
    agents: Annotated[list[Label], Field(max_length=50)] = []
    """Which agents; left out, all that are served."""

    @model_validator(mode="after")
    def _is_of_one_session(self) -> Self:
        if self.listener is not None and self.heard:
            raise ValueError("give heard or listener: a simulated listener has heard songs already")
        if self.listener is None and self.played:
            raise ValueError("played is for a simulated listener; name one as listener")
        return self


class TracksQuery(Described):
    """Asks for songs by name."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(min_length=1, max_length=LONGEST_QUERY)]
    """Words of names, also misspelled; parts of ids where songs have no names."""
    limit: Annotated[int, Field(ge=1, le=MOST_SONGS)] = 10
    """How many songs at most."""


class Song(Described):
    """A song of the catalog."""

    id: str
    """Track id."""
    title: str
    """Its title; its id where the data has no names."""
    artist: str | None
    """Who plays it, where that is known."""


class ScoredSong(Song):
    """A song that an agent recommends."""

    score: float | None
    """What the agent orders songs by, where it is a number: a critic's value or a dot product."""


class Unknown(Described):
    """A song that was named and is not in the catalog."""

    song: str
    """As it was named."""
    reason: str
    """Why it was not found."""


class ServedBy(Described):
    """What answered."""

    run: str
    """Name of the run."""
    agent: str
    """Label of the agent in it."""
    seed: int
    """Of the agent's training."""
    dataset: str
    """Fingerprint of the dataset."""


class Recommendation(Described):
    """Songs to play next, best first."""

    songs: list[ScoredSong]
    """Fewer than were asked for where too few are left for another slate."""
    unknown: list[Unknown]
    """Songs named that the catalog does not know, which count for nothing."""
    served_by: ServedBy
    """Run, agent and dataset behind the answer."""


class PlaylistSong(Song):
    """A song of a playlist."""

    skip_chance: float
    """After the songs before it, by a learned listener."""


class Playlist(Described):
    """Songs to play, in order."""

    songs: list[PlaylistSong]
    """Fewer than were asked for where too few are left for another slate."""
    unknown: list[Unknown]
    """Songs named that the catalog does not know, which count for nothing."""
    served_by: ServedBy
    """Run, agent and dataset behind the answer."""


class FoundSong(Song):
    """A song that a search found."""

    row: int
    """Its place in the catalog and on the map, the most played first."""
    keep_rate: float
    """Shrunken share of its plays in training that were kept."""


class Tracks(Described):
    """Songs like a query, best first."""

    tracks: list[FoundSong]
    """Fewer than were asked for where no more are like the query."""


class AgentAbout(Described):
    """An agent that is served."""

    agent: str
    """Its label in the run."""
    seed: int
    """Of its training."""
    about: str
    """What it does."""


class About(Described):
    """What is served."""

    run: str
    """Its name."""
    dataset: str
    """Its fingerprint."""
    tracks: int
    """Songs of the catalog."""
    mapped: int
    """Songs of the map: the most played."""
    titles: bool
    """Whether songs have names and not ids alone."""
    listeners: int
    """Sessions of the dataset, each with a listener who can be simulated."""
    evaluator: str
    """Who says how likely songs are skipped."""
    agents: list[AgentAbout]
    """Those that are served, the one that answers by default first."""
    left_out: list[str]
    """Agents of the run that cannot be served; the service's log says why."""


class HeardSong(Song):
    """A song that the session heard."""

    row: int
    """Its place in the catalog and on the map."""
    at: tuple[float, float]
    """Where it lies on the map, from left to right and from bottom to top, songs from 0 to 1."""
    level: int
    """How far it was heard, from 0 (brief) to 4 (full)."""
    skip_chance: float | None
    """Before it was heard; None of songs that the session began with."""


class SeenSong(ScoredSong):
    """A song that an agent would play, and what speaks for it."""

    row: int
    """Its place in the catalog and on the map."""
    at: tuple[float, float]
    """Where it lies on the map, as of songs heard."""
    skip_chance: float
    """By the simulated listener, after it heard the songs before this one; else the skip rate."""
    keep_rate: float
    """Shrunken share of its plays in training that were kept."""
    nearest: str | None
    """Which song heard is most like it."""
    likeness: float | None
    """Cosine of the two."""


class AgentView(Described):
    """What an agent would play now."""

    agent: str
    """Its label in the run."""
    songs: list[SeenSong]
    """Its slate, best first."""
    points: list[tuple[float, float]]
    """Its proto-actions on the map; none of an agent that names songs in another way."""
    near: list[int]
    """Rows of the songs nearest to the first of them."""


class Look(Described):
    """A session, and what agents would play in it now."""

    run: str
    """Name of the run that is asked."""
    dataset: str
    """Fingerprint of the dataset."""
    heard: list[HeardSong]
    """Songs that the session heard, oldest first."""
    remaining: int | None
    """Songs until the simulated session is over."""
    over: bool
    """Whether it is, so that agents name no songs."""
    agents: list[AgentView]
    """Each agent that was asked for, with the songs that it would play next."""
    unknown: list[Unknown]
    """Songs named that the catalog does not know, which count for nothing."""


class Problem(Described):
    """Why a request was refused."""

    detail: str
    """In a sentence."""
