"""A session for people to look at: its songs as bars, as high as they were heard.

Two looks of one thing: `ansi` for terminals, `rgb_array` for videos and notebooks. Colours run from
red (skipped) to blue (kept), which the colour-blind can tell apart; height shows the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.errors import shown
from musicbox_env.schema import Level, is_skip
from musicbox_env.simulator.dynamics import Outcome, Simulator

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Colour = tuple[int, int, int]

LEVEL_COLOURS: Final[dict[Level, Colour]] = {
    Level.UNHEARD: (72, 79, 94),
    Level.BRIEF: (226, 75, 74),
    Level.SHORT: (245, 158, 93),
    Level.MOST: (156, 206, 240),
    Level.CUT: (92, 170, 236),
    Level.FULL: (44, 127, 226),
}
LEVEL_GLYPHS: Final = dict(zip(LEVEL_COLOURS, "·▁▃▅▆█", strict=True))
HEARD_LEVELS: Final = tuple(level for level in Level if level >= 0)
MOST_BARS = 40
"""A longer session is shown from its end."""

WIDTH, HEIGHT = 960, 480
DRAWN_WIDTH, DRAWN_HEIGHT = 2 * WIDTH, 2 * HEIGHT
"""Drawn twice as large and then reduced, which smooths the edges."""
BACKGROUND: Final[Colour] = (22, 25, 33)
PANEL: Final[Colour] = (32, 36, 47)
TEXT: Final[Colour] = (232, 235, 241)
FAINT: Final[Colour] = (140, 148, 164)
ACCENT: Final[Colour] = (255, 214, 102)
MARGIN = 64
STRIP_TOP, STRIP_BOTTOM = 208, 496
SLATE_TOP, SLATE_BOTTOM = 600, 840
LEGEND_MIDDLE = 900


@dataclass(frozen=True)
class SessionView:
    """What there is to see of one session.

    Attributes:
        tracks: Catalog rows of the songs heard so far ``(t,)``, oldest first.
        levels: Their listen levels ``(t,)``.
        shown: How many of them are the logged history shown at reset.
        slate: The slate just played ``(k,)``, -1 where nothing was.
        slate_levels: Its listen levels ``(k,)``, -1 where not heard.
        titles: A name for each of ``tracks``.
        session: Name of the session.
        reward: Reward of the last step.
    """

    tracks: npt.NDArray[np.integer]
    levels: npt.NDArray[np.integer]
    shown: int
    slate: npt.NDArray[np.integer]
    slate_levels: npt.NDArray[np.integer]
    titles: tuple[str, ...]
    session: str
    reward: float

    @property
    def last_slate(self) -> list[tuple[int, str, Level]]:
        """Place, title and level of each song heard of the slate just played.

        A track that is not among those heard goes by its row number.
        """
        title_of = dict(zip(self.tracks.tolist(), map(shown, self.titles), strict=True))
        heard = zip(self.slate.tolist(), self.slate_levels.tolist(), strict=True)
        return [
            (place, title_of.get(track, f"track {track}"), Level(level))
            for place, (track, level) in enumerate(heard, start=1)
            if level >= 0
        ]

    @property
    def first_bar(self) -> int:
        """The first song that is shown as a bar."""
        return max(0, len(self.tracks) - MOST_BARS)

    @property
    def summary(self) -> str:
        """How many songs were recommended so far and how they fared."""
        recommended = self.levels[self.shown :]
        if not len(recommended):
            return f"{self.shown} songs shown, nothing recommended yet"
        skipped = np.count_nonzero(is_skip(recommended))
        return f"{self.shown} songs shown, {len(recommended)} recommended, {skipped} skipped"


def session_view(simulator: Simulator, row: int, last: Outcome | None) -> SessionView:
    """What there is to see of one session of a simulator.

    Args:
        simulator: Its sessions have begun.
        row: Which of them.
        last: What the last step did to all of them; None if there was none.
    """
    history, log = simulator.history, simulator.assets.dataset
    count, k = int(history.count[row]), simulator.assets.config.slate_size
    outcome = last or Outcome.nothing(simulator.num_envs, k)
    tracks = history.tracks[row, :count]
    return SessionView(
        tracks=tracks,
        levels=history.levels[row, :count],
        shown=int(history.shown[row]),
        slate=outcome.slate[row],
        slate_levels=outcome.levels[row],
        titles=tuple(log.catalog.titles[tracks]),
        session=str(log.sessions.session_ids[history.session[row]]),
        reward=float(outcome.reward[row]),
    )


def ansi(view: SessionView) -> str:
    """Draw a session for a terminal with 24-bit colours.

    Args:
        view: The session.

    Returns:
        Lines of text with escape sequences.
    """
    bars = [_glyph(Level(level)) for level in view.levels[view.first_bar :].tolist()]
    split = max(0, view.shown - view.first_bar)
    legend = "  ".join(f"{_glyph(level)} {_answer(level)}" for level in HEARD_LEVELS)
    slate = [
        f"  {place}  {_glyph(level)}  {title}  {_answer(level)}"
        for place, title, level in view.last_slate
    ]
    lines = [
        f"session {view.session}",
        view.summary,
        "",
        "  " + " ".join([*bars[:split], "│", *bars[split:]]),
        "",
        f"last slate, reward {view.reward:.2f}" if slate else "no slate yet",
        *slate,
        "",
        "  " + legend,
    ]
    return "\n".join(lines) + "\n"


def rgb_array(view: SessionView) -> npt.NDArray[np.uint8]:
    """Draw a session as a picture.

    Args:
        view: The session.

    Returns:
        ``(HEIGHT, WIDTH, 3)``.

    Raises:
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise ImportError(
            'render_mode="rgb_array" draws with Pillow; install it with `pip install pillow`, or '
            'use render_mode="ansi".'
        ) from error
    image = Image.new("RGB", (DRAWN_WIDTH, DRAWN_HEIGHT), BACKGROUND)
    canvas, right = ImageDraw.Draw(image), DRAWN_WIDTH - MARGIN
    _write(canvas, (MARGIN, 80), f"Session {_cut(view.session, 56)}", size=44)
    _write(canvas, (MARGIN, 136), view.summary, size=28, colour=FAINT)
    _write(canvas, (right, 80), f"{view.reward:.2f}", size=44, anchor="rm")
    _write(canvas, (right, 136), "reward of the last slate", 28, FAINT, anchor="rm")
    _draw_strip(canvas, view)
    _draw_slate(canvas, view)
    _draw_legend(canvas)
    return np.array(image.reduce(2))


def _write(
    canvas: ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: Colour = TEXT,
    anchor: str = "lm",
) -> None:
    """Write one line of text; ``anchor`` is Pillow's, ``lm`` left and middle."""
    canvas.text(at, text, fill=colour, font_size=size, anchor=anchor)


def _draw_strip(canvas: ImageDraw, view: SessionView) -> None:
    """All songs so far as bars, those shown at reset on a panel, the last slate underlined."""
    first, count = view.first_bar, len(view.tracks) - view.first_bar
    new = count - len(view.last_slate)  # the first bar of the last slate
    pitch = min(84.0, (DRAWN_WIDTH - 2 * MARGIN) / max(count, 1))
    width = 0.68 * pitch
    shown = max(0, view.shown - first)
    if shown:
        panel = (MARGIN - 16, STRIP_TOP - 32, MARGIN + shown * pitch, STRIP_BOTTOM + 48)
        canvas.rounded_rectangle(panel, 16, PANEL)
    for place, level in enumerate(view.levels[first:].tolist()):
        left = MARGIN + place * pitch + (pitch - width) / 2 - 8
        height = (STRIP_BOTTOM - STRIP_TOP) * (level + 1) / (Level.FULL + 1)
        bar = (left, STRIP_BOTTOM - height, left + width, STRIP_BOTTOM)
        canvas.rounded_rectangle(bar, 8, LEVEL_COLOURS[Level(level)])
        number, colour = str(first + place + 1), ACCENT if place >= new else FAINT
        _write(canvas, (left + width / 2, STRIP_BOTTOM + 24), number, 22, colour, "mm")
    if new < count:
        ends = MARGIN + new * pitch, MARGIN + count * pitch - 16
        canvas.line([(end, STRIP_BOTTOM + 44) for end in ends], ACCENT, 4)


def _draw_slate(canvas: ImageDraw, view: SessionView) -> None:
    """A card for each song of the slate just played."""
    _write(canvas, (MARGIN, SLATE_TOP - 24), "Slate just played", size=28, colour=FAINT)
    gap, top = 24, SLATE_TOP + 8
    if not view.last_slate:
        card = (MARGIN, top, DRAWN_WIDTH - MARGIN, SLATE_BOTTOM)
        canvas.rounded_rectangle(card, 20, PANEL)
        _write(canvas, (WIDTH, (top + SLATE_BOTTOM) / 2), "none yet", 32, FAINT, "mm")
        return
    places = len(view.slate)
    width = (DRAWN_WIDTH - 2 * MARGIN - gap * (places - 1)) / places
    for place, title, level in view.last_slate:
        left, colour = MARGIN + (place - 1) * (width + gap), LEVEL_COLOURS[level]
        canvas.rounded_rectangle((left, top, left + width, SLATE_BOTTOM), 20, PANEL)
        canvas.rounded_rectangle((left, top, left + 16, SLATE_BOTTOM), 8, colour)
        letters = max(4, int((width - 72) / 18))
        _write(canvas, (left + 48, top + 48), f"{place}", size=28, colour=ACCENT)
        _write(canvas, (left + 48, top + 112), _cut(title, letters), size=30)
        _write(canvas, (left + 48, top + 172), _answer(level), size=30, colour=colour)


def _draw_legend(canvas: ImageDraw) -> None:
    """What the colours mean."""
    middle, pitch = LEGEND_MIDDLE, (DRAWN_WIDTH - 2 * MARGIN) / len(HEARD_LEVELS)
    for level in HEARD_LEVELS:
        left = MARGIN + level * pitch
        box = (left, middle - 14, left + 28, middle + 14)
        canvas.rounded_rectangle(box, 6, LEVEL_COLOURS[level])
        _write(canvas, (left + 44, middle), _answer(level), size=26, colour=FAINT)


def _answer(level: Level) -> str:
    """A level in words."""
    return f"{level.name.lower()}, {'skipped' if is_skip(level) else 'kept'}"


def _glyph(level: Level) -> str:
    """A level's bar in its colour, by ECMA-48's escape sequence for 24-bit colours."""
    red, green, blue = LEVEL_COLOURS[level]
    return f"\x1b[38;2;{red};{green};{blue}m{LEVEL_GLYPHS[level]}\x1b[0m"


def _cut(text: str, letters: int) -> str:
    """The text, shortened in the middle where ids differ least."""
    if len(text) <= letters:
        return text
    head = letters // 2
    return f"{text[:head]}…{text[len(text) - (letters - 1 - head) :]}"
