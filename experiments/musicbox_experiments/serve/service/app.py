"""The HTTP service: songs in, songs out, and the page that shows how they were chosen."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from musicbox_env import __version__
from musicbox_env.errors import is_message
from musicbox_experiments.serve.engine import Engine, ServedAgent
from musicbox_experiments.serve.recommender import LiveSession
from musicbox_experiments.serve.service.asking import live_session
from musicbox_experiments.serve.service.batching import Batcher, BusyError
from musicbox_experiments.serve.service.guard import Guard, Limits
from musicbox_experiments.serve.service.look import Looker
from musicbox_experiments.serve.service.metrics import Metrics
from musicbox_experiments.serve.service.schemas import (
    NO_TEXT,
    TEXT,
    About,
    AgentAbout,
    FoundSong,
    Look,
    LookRequest,
    Playlist,
    PlaylistRequest,
    PlaylistSong,
    Problem,
    Recommendation,
    RecommendRequest,
    ScoredSong,
    ServedBy,
    Session,
    Tracks,
    TracksQuery,
    Unknown,
)
from musicbox_experiments.train.variants import about

PAGE: Final = Path(__file__).parent / "page"
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    code: {"model": Problem, "description": what}
    for code, what in {
        400: "The body is no JSON, or the request no HTTP.",
        401: "The token is missing or wrong.",
        404: "There is no such song or page.",
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        421: "The service is not called by that host name.",
        422: "A value cannot be; the answer says which.",
        503: "Too many requests wait; try again in a second.",
        504: "The answer took too long.",
    }.items()
}
FEW_NAMES: Final = 64
"""Names of songs, or letters of their text, that are looked up sooner than a thread is called."""
FAULT: Final = "This is a fault of the service, and noted in its log."
SAID: Final = {
    "extra_forbidden": "no such name; /docs lists those that are known",
    "json_invalid": "from this character on it is no JSON",
    "missing": "is missing; /docs lists what is needed",
    "model_attributes_type": "expected a JSON object",
}
"""What is said of a fault where pydantic's own words do not tell how to mend it."""
UNREAD: Final = "There was an error parsing the body"
"""What FastAPI says of bodies that are no JSON to Python's decoder."""
NO_ROUTE: Final = {
    404: "There is no such page or operation; /docs lists them.",
    405: "This operation has another method; /docs lists them.",
}
Result = TypeVar("Result")


class Service:
    """What answers: an engine, its looker, and the threads that compute."""

    def __init__(self, engine: Engine, looker: Looker) -> None:
        """Make counters and threads; `running` starts them."""
        self.engine, self.looker, self.metrics = engine, looker, Metrics()
        self.batcher = Batcher(self.metrics.batches.observe)
        self._searching = ThreadPoolExecutor(1, thread_name_prefix="search")

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Answer batches until the application ends."""
        answering = asyncio.create_task(self.batcher.run())
        yield
        answering.cancel()
        self.batcher.close()
        self._searching.shutdown(wait=False, cancel_futures=True)

    async def recommendation(self, request: RecommendRequest) -> Recommendation:
        """The next songs for a session."""
        agent, session, unknown = await self._session(request)
        songs = await self.batcher.songs(agent, session, request.k)
        return Recommendation(
            songs=[ScoredSong(**self.looker.about(row), score=score) for row, score in songs],
            unknown=unknown,
            served_by=self._served_by(agent),
        )

    async def playlist(self, request: PlaylistRequest) -> Playlist:
        """Songs to be heard one after another in a session."""
        agent, session, unknown = await self._session(request)
        with _refusing():
            places = await self.batcher.compute(partial(agent.playlist, session, request.n))
        return Playlist(
            songs=[
                PlaylistSong(**self.looker.about(place.track), skip_chance=place.skip)
                for place in places
            ],
            unknown=unknown,
            served_by=self._served_by(agent),
        )

    async def _session(self, request: Session) -> tuple[ServedAgent, LiveSession, list[Unknown]]:
        read = partial(live_session, self.engine, request)
        few = len(request.heard) + len(request.exclude) <= FEW_NAMES
        with _refusing():
            agent = self.engine.agent(request.agent)
            return agent, *(read() if few else await self._aside(read))

    async def _aside(self, function: Callable[[], Result]) -> Result:
        """Call a function of names, of which many take long, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._searching, function)

    def _served_by(self, agent: ServedAgent) -> ServedBy:
        run, fingerprint = self.engine.run, self.engine.fingerprint
        return ServedBy(run=run, agent=agent.label, seed=agent.seed, dataset=fingerprint)

    async def tracks(self, query: str, limit: int) -> Tracks:
        """Songs like a query."""
        search = partial(self.engine.songs.search, query, limit)
        rows = await self._aside(search)
        return Tracks(tracks=[self.found(row) for row in rows])

    def found(self, row: int) -> FoundSong:
        """A song as a search shows it."""
        keep_rate = self.looker.keep_rate(row)
        return FoundSong(**self.looker.about(row), row=row, keep_rate=keep_rate)

    async def look(self, request: LookRequest) -> Look:
        """See `Looker.look`."""
        with _refusing():
            return await self.batcher.compute(partial(self.looker.look, request))

    def about(self) -> About:
        """What is served."""
        engine, looker = self.engine, self.looker
        return About(
            run=engine.run,
            dataset=engine.fingerprint,
            tracks=len(engine.songs),
            mapped=len(looker.map),
            titles=engine.songs.named,
            listeners=len(looker.assets.pool),
            evaluator=looker.evaluator,
            agents=[
                AgentAbout(agent=served.label, seed=served.seed, about=_about(served))
                for served in engine.agents.values()
            ],
            left_out=engine.left_out,
        )


def _about(served: ServedAgent) -> str:
    """What an agent does, by its class where its folder was renamed and the label names none."""
    with suppress(ValueError):
        return about(served.label, {})
    return (type(served.agent).__doc__ or "").partition("\n")[0]


async def _service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Asked = Annotated[Service, Depends(_service_of)]
"""The service of the application that was asked. Endpoints must not hold one themselves: FastAPI
keeps thousands of endpoints for good, with the runs of applications that were replaced."""


async def _without_query(request: Request) -> None:
    """Refuse names behind a question mark, of which the operation would know none."""
    if request.query_params:
        faults = [
            {"type": "extra_forbidden", "loc": ("query", name)} for name in request.query_params
        ]
        raise RequestValidationError(faults)


plain, other = APIRouter(dependencies=[Depends(_without_query)]), APIRouter()


def create_app(
    engine: Engine,
    looker: Looker,
    *,
    token: str | None = None,
    hosts: tuple[str, ...] | None = None,
    limits: Limits | None = None,
) -> Guard:
    """The application of one worker; its parameters are those of `Guard`."""
    service = Service(engine, looker)
    app = FastAPI(
        title="MusicBox",
        version=__version__,
        description="Songs to play next, chosen by an agent of a run. See docs/serving.md.",
        docs_url=None,  # FastAPI's page loads scripts from another host
        redoc_url=None,
        lifespan=service.running,
        responses=PROBLEMS,
        exception_handlers={
            RequestValidationError: _invalid,
            BusyError: _busy,
            StarletteHTTPException: _refused,
            Exception: _fault,
        },
    )
    app.state.service = service
    for router in (plain, other):
        app.include_router(router)
    app.mount("/page", StaticFiles(directory=PAGE))
    limits = limits or Limits()
    return Guard(app, service.metrics, limits=limits, token=token, hosts=hosts)


@plain.post("/v1/recommend")
async def recommend(request: RecommendRequest, service: Asked) -> Recommendation:
    """The songs to play next for a listening history, best first."""
    return await service.recommendation(request)


@plain.post("/v1/playlist")
async def playlist(request: PlaylistRequest, service: Asked) -> Playlist:
    """Songs to play one after another, each heard as far as a learned listener likely would."""
    return await service.playlist(request)


@other.get("/v1/tracks")
async def tracks(asked: Annotated[TracksQuery, Query()], service: Asked) -> Tracks:
    """Songs by name, with typos, or by parts of their ids where they have no names."""
    return await service.tracks(asked.query, asked.limit)


@plain.get("/v1/tracks/{row}")
async def track(
    row: Annotated[int, PathParameter(ge=0, lt=2**31, description="Place in the catalog.")],
    service: Asked,
) -> FoundSong:
    """The song in a row of the catalog."""
    if row >= len(service.engine.songs):
        raise HTTPException(404, f"The catalog has no row {row}.")
    return service.found(row)


@plain.get("/v1/about")
async def what_is_served(service: Asked) -> About:
    """The run, its agents and its catalog."""
    return service.about()


@plain.post("/v1/look")
async def look(request: LookRequest, service: Asked) -> Look:
    """A session, and what each agent would play in it now and why."""
    return await service.look(request)


@plain.get(
    "/v1/map",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def catalog_map(request: Request, service: Asked) -> Response:
    """The catalog in two dimensions, packed: its bytes are described in docs/serving.md."""
    tag = f'"{service.engine.fingerprint[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=0, must-revalidate"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    packed = service.looker.map.packed
    return Response(packed, media_type="application/octet-stream", headers=headers)


@other.get("/", include_in_schema=False)
async def start() -> FileResponse:
    """The page."""
    return FileResponse(PAGE / "index.html")


@other.get("/docs", include_in_schema=False)
async def documentation() -> FileResponse:
    """What programs can ask."""
    return FileResponse(PAGE / "docs.html")


@other.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@other.get("/readyz")
async def readyz(service: Asked) -> dict[str, str]:
    """Whether the thread that computes answers, too."""
    await service.batcher.call(lambda: None)
    return {"status": "ready", "run": service.engine.run}


@other.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(service: Asked) -> Response:
    """Counters for Prometheus."""
    counted = await asyncio.to_thread(service.metrics.page)
    return Response(counted, media_type="text/plain; version=0.0.4")


def _sentence(faults: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with a request, without the value, which may be large or no JSON number."""
    said = []
    for fault in faults[:5]:
        where = ".".join(str(part)[:40] for part in fault["loc"][:6] if _is_of_request(part))
        what = (SAID.get(fault["type"]) or fault["msg"]).removeprefix("Value error, ")[:200]
        if where == "body" and fault["type"] == "model_attributes_type":
            what += ", sent with Content-Type: application/json"
        said.append(f"{where}: {what}")
    return "; ".join(said)


def _is_of_request(part: int | str) -> bool:
    """Whether a part of a fault's place is a name or index, and not an arm of a union."""
    return part not in (TEXT, NO_TEXT)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    broken = any(each["type"] == "json_invalid" for each in faults)
    return JSONResponse({"detail": _sentence(faults)}, 400 if broken else 422)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    status = error.status_code
    plain = error.detail == HTTPStatus(status).phrase
    detail = NO_ROUTE.get(status, error.detail) if plain else error.detail
    if detail == UNREAD:
        detail = "The body is no JSON in UTF-8; compressed or very deep ones are not read."
    return JSONResponse({"detail": detail}, status, headers=error.headers)


async def _busy(request: Request, error: Exception) -> JSONResponse:
    detail = "Too many requests wait; try again in a second."
    return JSONResponse({"detail": detail}, 503, headers={"Retry-After": "1"})


async def _fault(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": FAULT}, 500)


@contextmanager
def _refusing() -> Iterator[None]:
    """Answer what the block refuses with its own message."""
    try:
        yield
    except (ValueError, LookupError) as error:
        if not is_message(error):
            raise
        raise HTTPException(422, str(error.args[0])) from None
