"""Requests that wait are answered together: one thread computes, in batches."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

import torch
from threadpoolctl import threadpool_limits

from musicbox_experiments.serve.engine import Asked, Scored, ServedAgent
from musicbox_experiments.serve.recommender import AT_ONCE, LiveSession

MOST_WAITING: Final = 1_024
"""Requests that wait, one of many songs counted as several; further ones are refused at once."""
SONGS_OF_ONE: Final = 10
"""Songs for which a request counts as one."""
MOST_COMPUTING: Final = 32
"""Computations that wait for their turn between batches; further ones are refused at once."""

Songs = list[Scored]
Result = TypeVar("Result")


def one_thread() -> None:
    """Let this thread compute alone: workers are what is parallel, and no pool survives a fork."""
    threadpool_limits(1)
    torch.set_num_threads(1)


class BusyError(RuntimeError):
    """More requests wait than will be answered in time."""


def _future() -> "asyncio.Future[Songs]":
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False)
class Job(Asked):
    """A request that waits for songs.

    Attributes:
        agent: Who is asked.
        answer: What comes of it.
    """

    agent: ServedAgent = field(kw_only=True)
    answer: asyncio.Future[Songs] = field(default_factory=_future)

    @property
    def weight(self) -> int:
        """As how many requests it counts."""
        return -(-self.number // SONGS_OF_ONE)


class Batcher:
    """Collects what arrives while a batch is computed, and computes it as the next batch.

    No request waits for others to come. A lone request is a batch of one. A batch finds one slate
    for each request; one that needs more goes behind those that came meanwhile, so that requests
    for few songs do not wait for those for many. What is no request for songs is computed between
    batches, one at a time, so that no batch waits for many.
    """

    def __init__(self, observe: Callable[[int], object] = lambda size: None) -> None:
        """Make a thread that computes; ``observe`` is called with the size of each batch."""
        self._thread = ThreadPoolExecutor(1, "predict", initializer=one_thread)
        self._waiting: asyncio.Queue[Job] = asyncio.Queue()
        self._count, self._computing, self._turn = 0, 0, asyncio.Lock()
        self._observe = observe

    async def songs(self, agent: ServedAgent, session: LiveSession, number: int) -> Songs:
        """Songs of one request; see `ServedAgent.songs`.

        Raises:
            BusyError: Too many requests wait.
        """
        job = Job(session, number, agent=agent)
        if self._count + job.weight > MOST_WAITING:
            raise BusyError
        self._count += job.weight
        self._waiting.put_nowait(job)
        try:
            return await job.answer
        finally:
            self._count -= job.weight

    async def compute(self, function: Callable[[], Result]) -> Result:
        """Call a function that asks agents, which serve one thread alone, between batches.

        Raises:
            BusyError: Too many others wait.
        """
        if self._computing >= MOST_COMPUTING:
            raise BusyError
        self._computing += 1
        try:
            async with self._turn:
                return await self.call(function)
        finally:
            self._computing -= 1

    async def call(self, function: Callable[[], Result]) -> Result:
        """Call a function in the thread that computes, after what it computes now."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            jobs = [await self._waiting.get()]
            with suppress(asyncio.QueueEmpty):
                while len(jobs) < AT_ONCE:
                    jobs.append(self._waiting.get_nowait())
            jobs = [job for job in jobs if not job.answer.done()]  # whoever asked may be gone
            self._observe(len(jobs))
            faults = await self.call(lambda jobs=jobs: _faults(jobs))  # type: ignore[misc]
            for job, fault in zip(jobs, faults, strict=True):
                if job.answer.done():
                    continue
                if fault is not None:
                    job.answer.set_exception(fault)
                elif job.over:
                    job.answer.set_result(job.songs)
                else:
                    self._waiting.put_nowait(job)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _faults(jobs: Sequence[Job]) -> list[Exception | None]:
    """Find a slate for each job, those of one agent together; what went wrong, by job."""
    alike: dict[ServedAgent, list[int]] = defaultdict(list)
    for place, job in enumerate(jobs):
        alike[job.agent].append(place)
    faults: dict[int, Exception | None] = {}
    for agent, places in alike.items():
        part = [jobs[place] for place in places]
        faults.update(zip(places, _faults_of(agent, part), strict=True))
    return [faults[place] for place in range(len(jobs))]


def _faults_of(agent: ServedAgent, jobs: Sequence[Job]) -> list[Exception | None]:
    """Of one agent; if a batch fails, each alone, so that one cannot fail the others."""
    try:
        agent.add_slates(jobs)
    except Exception as error:
        return [error] if len(jobs) == 1 else [_faults_of(agent, [job])[0] for job in jobs]
    return [None] * len(jobs)
