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

from musicbox_experiments.serve.engine import Scored, ServedAgent
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


@dataclass
class Job:
    """A request that waits for songs.

    Attributes:
        agent: Who is asked.
        session: In which session.
        number: For how many songs.
        answer: What comes of it.
    """

    agent: ServedAgent
    session: LiveSession
    number: int
    answer: asyncio.Future[Songs] = field(default_factory=_future)

    @property
    def weight(self) -> int:
        """As how many requests it counts."""
        return -(-self.number // SONGS_OF_ONE)


class Batcher:
    """Collects what arrives while a batch is computed, and computes it as the next batch.

    No request waits for others to come. A lone request is a batch of one. What is no request for
    songs is computed between batches, one at a time, so that no batch waits for many.
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
        job = Job(agent, session, number)
        if self._count + job.weight > MOST_WAITING:
            raise BusyError
        self._count += job.weight
        self._waiting.put_nowait(job)
        return await job.answer

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
            self._count -= sum(job.weight for job in jobs)
            jobs = [job for job in jobs if not job.answer.done()]  # whoever asked may be gone
            self._observe(len(jobs))
            results = await self.call(lambda jobs=jobs: _answers(jobs))  # type: ignore[misc]
            for job, result in zip(jobs, results, strict=True):
                if job.answer.done():
                    continue
                if isinstance(result, Exception):
                    job.answer.set_exception(result)
                else:
                    job.answer.set_result(result)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _answers(jobs: Sequence[Job]) -> list[Songs | Exception]:
    """Answers in the order of the jobs, those of one agent computed together."""
    alike: dict[ServedAgent, list[int]] = defaultdict(list)
    for place, job in enumerate(jobs):
        alike[job.agent].append(place)
    answers: dict[int, Songs | Exception] = {}
    for places in alike.values():
        part = [jobs[place] for place in places]
        answers.update(zip(places, _answered(part), strict=True))
    return [answers[place] for place in range(len(jobs))]


def _answered(jobs: Sequence[Job]) -> Sequence[Songs | Exception]:
    """Answers of one agent; if a batch fails, each alone, so that one cannot fail the others."""
    try:
        return jobs[0].agent.songs([job.session for job in jobs], [job.number for job in jobs])
    except Exception as error:
        return [error] if len(jobs) == 1 else [_answered([job])[0] for job in jobs]
