"""What requests and answers hold: strict types, bounded sizes, no unknown names."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from musicbox_env.schema import CONTEXT_TYPES, NUM_LEVELS

MOST_HEARD: Final = 500
MOST_EXCLUDED: Final = 1_000
MOST_SONGS: Final = 100
LONGEST_NAME: Final = 300
DAY_MS: Final = 86_400_000

SongName = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
"""A track id, a Spotify link or URI, or "Artist - Title", however it is spelled."""
LevelName = Literal["skipped", "kept", "brief", "short", "most", "cut", "full"]


TEXT, NO_TEXT = "[text]", "[no text]"
"""Arms of a union, of which the value's type says which is meant; no part of a value's place."""


def _arm(value: object) -> str:
    return TEXT if isinstance(value, str) else NO_TEXT


class Strict(BaseModel):
    """Refuses names that it does not know, and values of another type."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Heard(Strict):
    """A song heard, and how far: exactly one of level, skipped, share and milliseconds."""

    song: SongName
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
    premium: bool | None = None
    """Whether the listener pays."""
    shuffle: bool | None = None
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
    exclude: Annotated[list[SongName], Field(max_length=MOST_EXCLUDED)] = []
    """Further songs that shall not be recommended."""
    agent: Annotated[str, Field(max_length=200)] | None = None
    """Who chooses: an agent of the run; left out, the one that /v1/about names first."""


class RecommendRequest(Session):
    """Asks for the songs to play next."""

    k: Annotated[int, Field(ge=1, le=MOST_SONGS)] = 3


class PlaylistRequest(Session):
    """Asks for songs to play one after another."""

    n: Annotated[int, Field(ge=1, le=MOST_SONGS)] = 20


class LookRequest(Strict):
    """Asks what agents would play now, and why.

    Either in a session of one's own (`heard`), or in one of the dataset (`listener`), whose first
    half is shown and whose simulated listener hears the songs of `played` one after another.
    """

    heard: Annotated[list[Heard], Field(max_length=MOST_HEARD)] = []
    listener: Annotated[int, Field(ge=0, le=2**31)] | None = None
    played: Annotated[list[SongName], Field(max_length=MOST_SONGS)] = []
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Of the simulated listener's random numbers."""
    agents: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=50)] = []
    """Which agents; left out, all that are served."""


class Song(BaseModel):
    """A song of the catalog."""

    id: str
    title: str
    artist: str | None


class ScoredSong(Song):
    """A song that an agent recommends."""

    score: float | None
    """What the agent orders songs by, where it is a number: a critic's value or a dot product."""


class Unknown(BaseModel):
    """A song that was named and is not in the catalog."""

    song: str
    reason: str


class ServedBy(BaseModel):
    """What answered."""

    run: str
    agent: str
    seed: int
    dataset: str
    """Fingerprint of the dataset."""


class Recommendation(BaseModel):
    """Songs to play next, best first."""

    songs: list[ScoredSong]
    unknown: list[Unknown]
    served_by: ServedBy


class PlaylistSong(Song):
    """A song of a playlist."""

    skip_chance: float
    """After the songs before it, by a learned listener."""


class Playlist(BaseModel):
    """Songs to play, in order."""

    songs: list[PlaylistSong]
    unknown: list[Unknown]
    served_by: ServedBy


class FoundSong(Song):
    """A song that a search found."""

    row: int
    """Its place in the catalog and on the map, the most played first."""
    keep_rate: float


class Tracks(BaseModel):
    """Songs like a query, best first."""

    tracks: list[FoundSong]


class AgentAbout(BaseModel):
    """An agent that is served."""

    agent: str
    seed: int
    about: str


class About(BaseModel):
    """What is served."""

    run: str
    dataset: str
    tracks: int
    mapped: int
    """Songs of the map: the most played."""
    titles: bool
    """Whether songs have names and not ids alone."""
    listeners: int
    """Sessions of the dataset, each with a listener who can be simulated."""
    evaluator: str
    """Who says how likely songs are skipped."""
    agents: list[AgentAbout]
    left_out: list[str]
    """Agents of the run that cannot be served; the service's log says why."""


class HeardSong(Song):
    """A song that the session heard."""

    row: int
    at: tuple[float, float]
    level: int
    skip_chance: float | None
    """Before it was heard; None of songs that the session began with."""


class SeenSong(ScoredSong):
    """A song that an agent would play, and what speaks for it."""

    row: int
    at: tuple[float, float]
    skip_chance: float
    keep_rate: float
    nearest: str | None
    """Which song heard is most like it."""
    likeness: float | None
    """Cosine of the two."""


class AgentView(BaseModel):
    """What an agent would play now."""

    agent: str
    songs: list[SeenSong]
    points: list[tuple[float, float]]
    """Its proto-actions on the map; none of an agent that names songs in another way."""
    near: list[int]
    """Rows of the songs nearest to the first of them."""


class Look(BaseModel):
    """A session, and what agents would play in it now."""

    heard: list[HeardSong]
    remaining: int | None
    """Songs until the simulated session is over."""
    agents: list[AgentView]
    unknown: list[Unknown]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str
