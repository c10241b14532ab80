"""Products of matrices that come out the same whatever the machine is told about threads."""

from __future__ import annotations

from contextlib import AbstractContextManager

from threadpoolctl import threadpool_limits


def one_blas_thread() -> AbstractContextManager[object]:
    """One thread of BLAS within the block.

    How many share a product out shows in its last digits, and what is fitted or drawn from there
    on is another world: the same seed must make the same one, under `make` and without it.
    """
    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits
