"""The page of `musicbox serve` in the system's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

__all__ = ["CHROMIUM", "PHONE", "WAIT_MS", "names", "opening", "picture", "pixels", "ready"]
__all__ += ["strip", "sync_playwright"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT_MS = 60_000  # the first look compiles kernels
expect.set_options(timeout=WAIT_MS)
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@contextmanager
def opening(
    browser: Browser, where: str, path: str = "/", expected_errors: int = 0, **options: Any
) -> Iterator[Page]:
    """A page; at the end nothing may have gone wrong but what is expected, and no host been asked.

    Args:
        browser: Who shows it.
        where: Address of the service.
        path: What of it.
        expected_errors: How many the console must name: the browser notes each refused request.
        options: Of Playwright's context: size, scheme of colours, touch.
    """
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    wrong: list[str] = []
    foreign: list[str] = []
    page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda sent: sent.url.startswith(where) or foreign.append(sent.url))
    # Chromium may let a request pass that follows at once on the first route of a page.
    page.route("**/v1/*", lambda route: route.continue_())
    page.goto(where + path)
    yield page
    assert (len(wrong), foreign) == (expected_errors, []), (wrong, foreign)
    context.close()


def ready(page: Page) -> None:
    """Wait until agents have answered."""
    expect(page.locator("article").first).to_be_visible(timeout=WAIT_MS)


def strip(page: Page) -> Locator:
    """Bars of the songs heard."""
    return page.locator("#strip li")


def names(page: Page) -> list[str]:
    """Names of the songs that were recommended and heard."""
    bars = [bar.splitlines()[0] for bar in strip(page).all_inner_texts()]
    return [bar.split("\u2068")[1].split("\u2069")[0] for bar in bars if "chance of a skip" in bar]


def pixels(page: Page, canvas: str) -> int:
    """Pixels of a canvas that are drawn."""
    return page.evaluate(
        """id => {
            const canvas = document.getElementById(id);
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return data.filter((value, i) => i % 4 === 3 && value > 0).length;
        }""",
        canvas,
    )


def picture(page: Page) -> str:
    """The songs of the map as they are drawn."""
    return page.evaluate("document.getElementById('catalog').toDataURL()")
