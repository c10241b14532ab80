"""Products of matrices that do not depend on the number of BLAS threads."""

from __future__ import annotations

from contextlib import AbstractContextManager

from threadpoolctl import threadpool_limits


def one_blas_thread() -> AbstractContextManager[object]:
    """One thread of BLAS within the block.

    The last digits of a product depend on how many threads share it. What is fitted or drawn from
    them must be the same for the same seed.
    """
    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits
