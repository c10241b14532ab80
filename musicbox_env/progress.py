"""Progress bars of long tasks; where standard error is no terminal, a line now and then."""

import time
from typing import TYPE_CHECKING, Any

from tqdm import std

if TYPE_CHECKING:
    Bar = std.tqdm[Any]
else:
    Bar = std.tqdm

SECONDS_BETWEEN_LINES = 10.0


class tqdm(Bar):
    """The bar of the library, with the same arguments, in a form that log files can hold.

    Without a terminal it prints a line each `SECONDS_BETWEEN_LINES` and one at the end, and nothing
    for a task that takes less.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """See `tqdm.std.tqdm`."""
        self._due = time.monotonic() + SECONDS_BETWEEN_LINES
        self._begun = False
        super().__init__(*args, **options)
        if not self.disable and not self.fp.isatty():
            self.leave = False  # else the library ends with an empty line

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Draw the bar, or print its line if one is due; the library's last message is empty.

        Returns:
            Whether there is a bar to be wiped out.
        """
        if self.fp.isatty():
            return super().display(msg, pos)
        now = time.monotonic()
        if now >= self._due or (msg is not None and self._begun):
            self._due, self._begun = now + SECONDS_BETWEEN_LINES, True
            self.fp.write(f"{self}\n")
            self.fp.flush()
        return False
