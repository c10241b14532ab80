"""A session for people to look at: its songs as bars, as high as they were heard.

Two looks of one thing: `ansi` for terminals, `rgb_array` for videos and notebooks. Colours run from
red (skipped) to blue (kept), which the colour-blind can tell apart; height shows the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.schema import Level, is_skip

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Colour = tuple[int, int, int]

LEVEL_COLOURS: Final[dict[Level, Colour]] = {
    Level.UNHEARD: (72, 79, 94),
    Level.BRIEF: (226, 75, 74),
    Level.SHORT: (245, 158, 93),
    Level.MOST: (156, 206, 240),
    Level.CUT: (92, 170, 236),
    Level.FULL: (44, 127, 226),
}
LEVEL_GLYPHS: Final = {
    Level.UNHEARD: "·",
    Level.BRIEF: "▁",
    Level.SHORT: "▃",
    Level.MOST: "▅",
    Level.CUT: "▆",
    Level.FULL: "█",
}
HEARD_LEVELS: Final = tuple(level for level in Level if level >= 0)
MOST_BARS = 40
"""A longer session is shown from its end."""

WIDTH, HEIGHT = 960, 480
SCALE = 2
"""Drawn so many times larger and then reduced, which smooths the edges."""
BACKGROUND: Final[Colour] = (22, 25, 33)
PANEL: Final[Colour] = (32, 36, 47)
TEXT: Final[Colour] = (232, 235, 241)
FAINT: Final[Colour] = (140, 148, 164)
ACCENT: Final[Colour] = (255, 214, 102)
MARGIN = 32
STRIP_TOP, STRIP_BOTTOM = 104, 248
SLATE_TOP, SLATE_BOTTOM = 300, 420
LEGEND_MIDDLE = 450


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

    def __post_init__(self) -> None:
        count = len(self.tracks)
        if len(self.levels) != count or len(self.titles) != count:
            raise ValueError(
                f"A view has {count} tracks, {len(self.levels)} levels and {len(self.titles)} "
                "titles; each track needs one level and one title."
            )
        if len(self.slate) != len(self.slate_levels):
            raise ValueError(
                f"The slate has {len(self.slate)} songs and {len(self.slate_levels)} levels."
            )
        if not 0 <= self.shown <= count:
            raise ValueError(f"shown is {self.shown}; expected 0 to {count}, the songs heard.")

    def title_of(self, track: int) -> str:
        """Name of a track that was heard, or its row number."""
        places = np.flatnonzero(self.tracks == track)
        return self.titles[places[-1]] if len(places) else f"track {track}"

    @property
    def in_last_slate(self) -> int:
        """How many of the last songs heard came with the slate just played."""
        return int(np.count_nonzero(self.slate_levels >= 0))

    @property
    def summary(self) -> str:
        """How many songs were recommended so far and how they fared."""
        recommended = self.levels[self.shown :]
        if not len(recommended):
            return f"{self.shown} songs shown, nothing recommended yet"
        skipped = np.count_nonzero(is_skip(recommended))
        return f"{self.shown} songs shown, {len(recommended)} recommended, {skipped} skipped"


def ansi(view: SessionView) -> str:
    """Draw a session for a terminal with 24-bit colours.

    Args:
        view: The session.

    Returns:
        Lines of text with escape sequences.
    """
    first = max(0, len(view.tracks) - MOST_BARS)
    bars = [_painted(LEVEL_GLYPHS[Level(level)], level) for level in view.levels[first:].tolist()]
    split = max(0, view.shown - first)
    legend = "  ".join(
        f"{_painted(LEVEL_GLYPHS[level], level)} {_answer(level)}" for level in HEARD_LEVELS
    )
    slate = [
        f"  {place}  {_painted(LEVEL_GLYPHS[level], level)}  {title}  {_answer(level)}"
        for place, title, level in _slate_rows(view)
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
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), BACKGROUND)
    canvas = _Canvas(ImageDraw.Draw(image))
    canvas.text((MARGIN, 40), f"Session {_cut(view.session, 56)}", size=22)
    canvas.text((MARGIN, 68), view.summary, size=14, colour=FAINT)
    canvas.text((WIDTH - MARGIN, 40), f"{view.reward:.2f}", size=22, anchor="rm")
    canvas.text((WIDTH - MARGIN, 68), "reward of the last slate", 14, FAINT, anchor="rm")
    _draw_strip(canvas, view)
    _draw_slate(canvas, view)
    _draw_legend(canvas)
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX), dtype=np.uint8).copy()


class _Canvas:
    """Draws in units of the final picture on one that is `SCALE` times larger."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        from PIL import ImageFont

        self._draw = draw
        self._load = ImageFont.load_default
        self._fonts: dict[int, Font] = {}

    def box(
        self, corners: tuple[float, float, float, float], colour: Colour, radius: float
    ) -> None:
        """A filled rectangle with round corners: left, top, right, bottom."""
        self._draw.rounded_rectangle(_scaled(corners), radius * SCALE, fill=colour)

    def line(self, ends: tuple[float, float, float, float], colour: Colour, width: float) -> None:
        """A straight line."""
        self._draw.line(_scaled(ends), fill=colour, width=round(width * SCALE))

    def text(
        self,
        at: tuple[float, float],
        text: str,
        size: int,
        colour: Colour = TEXT,
        anchor: str = "lm",
    ) -> None:
        """One line of text; ``anchor`` is Pillow's, ``lm`` left and middle."""
        if size not in self._fonts:
            self._fonts[size] = self._load(size * SCALE)
        self._draw.text(_scaled(at), text, fill=colour, font=self._fonts[size], anchor=anchor)


def _draw_strip(canvas: _Canvas, view: SessionView) -> None:
    """All songs so far as bars, those shown at reset on a panel, the last slate underlined."""
    first = max(0, len(view.tracks) - MOST_BARS)
    count = len(view.tracks) - first
    pitch = min(42.0, (WIDTH - 2 * MARGIN) / max(count, 1))
    width = 0.68 * pitch
    shown = max(0, view.shown - first)
    if shown:
        right = MARGIN + shown * pitch
        canvas.box((MARGIN - 8, STRIP_TOP - 16, right, STRIP_BOTTOM + 24), PANEL, 8)
    for place, level in enumerate(view.levels[first:].tolist()):
        left = MARGIN + place * pitch + (pitch - width) / 2 - 4
        height = (STRIP_BOTTOM - STRIP_TOP) * (level + 1) / (Level.FULL + 1)
        bar = (left, STRIP_BOTTOM - height, left + width, STRIP_BOTTOM)
        canvas.box(bar, LEVEL_COLOURS[Level(level)], radius=4)
        last = place >= count - view.in_last_slate
        number, middle = str(first + place + 1), left + width / 2
        canvas.text((middle, STRIP_BOTTOM + 12), number, 11, ACCENT if last else FAINT, "mm")
    if view.in_last_slate:
        left = MARGIN + (count - view.in_last_slate) * pitch
        right = MARGIN + count * pitch - 8
        canvas.line((left, STRIP_BOTTOM + 22, right, STRIP_BOTTOM + 22), ACCENT, 2)


def _draw_slate(canvas: _Canvas, view: SessionView) -> None:
    """A card for each song of the slate just played."""
    canvas.text((MARGIN, SLATE_TOP - 12), "Slate just played", size=14, colour=FAINT)
    rows = _slate_rows(view)
    gap, top = 12, SLATE_TOP + 4
    if not rows:
        canvas.box((MARGIN, top, WIDTH - MARGIN, SLATE_BOTTOM), PANEL, 10)
        canvas.text((WIDTH / 2, (top + SLATE_BOTTOM) / 2), "none yet", 16, FAINT, "mm")
        return
    places = len(view.slate)
    width = (WIDTH - 2 * MARGIN - gap * (places - 1)) / places
    for place, title, level in rows:
        left = MARGIN + (place - 1) * (width + gap)
        canvas.box((left, top, left + width, SLATE_BOTTOM), PANEL, 10)
        canvas.box((left, top, left + 8, SLATE_BOTTOM), LEVEL_COLOURS[level], 4)
        letters = max(4, int((width - 36) / 9))
        canvas.text((left + 24, top + 24), f"{place}", size=14, colour=ACCENT)
        canvas.text((left + 24, top + 56), _cut(title, letters), size=15)
        canvas.text((left + 24, top + 86), _answer(level), size=15, colour=LEVEL_COLOURS[level])


def _draw_legend(canvas: _Canvas) -> None:
    """What the colours mean."""
    middle, pitch = LEGEND_MIDDLE, (WIDTH - 2 * MARGIN) / len(HEARD_LEVELS)
    for level in HEARD_LEVELS:
        left = MARGIN + level * pitch
        canvas.box((left, middle - 7, left + 14, middle + 7), LEVEL_COLOURS[level], 3)
        canvas.text((left + 22, middle), _answer(level), size=13, colour=FAINT)


def _slate_rows(view: SessionView) -> list[tuple[int, str, Level]]:
    """Place, title and level of each song of the slate that was heard."""
    heard = zip(view.slate.tolist(), view.slate_levels.tolist(), strict=True)
    return [
        (place, view.title_of(track), Level(level))
        for place, (track, level) in enumerate(heard, start=1)
        if level >= 0
    ]


def _answer(level: Level) -> str:
    """A level in words."""
    return f"{level.name.lower()}, {'skipped' if is_skip(level) else 'kept'}"


def _painted(text: str, level: int) -> str:
    """Text in a level's colour, by ECMA-48's escape sequence for 24-bit colours."""
    red, green, blue = LEVEL_COLOURS[Level(level)]
    return f"\x1b[38;2;{red};{green};{blue}m{text}\x1b[0m"


def _cut(text: str, letters: int) -> str:
    """The text, shortened in the middle where ids differ least."""
    if len(text) <= letters:
        return text
    head = letters // 2
    return f"{text[:head]}…{text[len(text) - (letters - 1 - head) :]}"


def _scaled(values: tuple[float, ...]) -> Any:
    """Units of the final picture as pixels of the larger one."""
    return tuple(round(v * SCALE) for v in values)
