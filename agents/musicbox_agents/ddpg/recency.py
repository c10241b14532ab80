"""What a session heard lately, and how alike songs are to it by how long ago it was heard.

Songs can wear out what is like them: strongly or not, at once or some songs later, for a short time
or a long one. So no decay is fixed here. Similarities are added up within spans of ages, and the
critic learns what each span counts. Shapes are those of `state`; ``L`` is the number of `SPANS`.
"""

from functools import cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

SPANS: Final = (0, 1, 2, 4, 6, 9, 14, 21)
"""Where each span of ages begins, in songs: 0 is the song just heard; the last has no end."""
FIRST: Final = 8
"""Songs that count as the beginning of a session: most of them the listener chose."""
HALF_LIVES: Final = (2.0, 8.0)
"""Songs after which a song counts half in the means of what was heard lately."""
NUM_MEANS: Final = 1 + len(HALF_LIVES)
_TINY: Final = 1e-9


def alike_by_age(songs: Tensor, heard: Tensor) -> Tensor:
    """How alike songs ``(B, M, d)``, each as the next one, are to those heard ``(B, H, d)``.

    ::

        alike_l(song) = sum over songs a heard in span l  max(0, song . a) ** 2

    Args:
        songs: Embeddings.
        heard: Embeddings in the order heard, the newest last, 0 where there is none.

    Returns:
        ``(B, M, L)``.
    """
    return (songs @ heard.mT).clamp(min=0).square() @ _spans(heard.shape[1])


def means_by_age(heard: Tensor, real: Tensor) -> Tensor:
    """Mean of the first `FIRST` songs, and means that fade by `HALF_LIVES` ``(B, NUM_MEANS, d)``.

    Args:
        heard: As of `alike_by_age`.
        real: Where there is a song ``(B, H)``.
    """
    first = real & (real.cumsum(dim=1) <= FIRST)
    age = torch.arange(heard.shape[1] - 1, -1, -1)
    lately = [real * 0.5 ** (age / half_life) for half_life in HALF_LIVES]
    weights = torch.stack([first.to(heard.dtype), *lately], dim=1)
    means: Tensor = weights @ heard / weights.sum(dim=2, keepdim=True).clamp(min=_TINY)
    return means


@cache
def _spans(length: int) -> Tensor:
    """Which span each place of a history is in ``(length, L)``, 1 or 0."""
    age = torch.arange(length - 1, -1, -1)
    span = torch.bucketize(age, torch.tensor(SPANS), right=True) - 1
    return functional.one_hot(span, len(SPANS)).to(torch.float32)
