"""The page in a real browser: the system's Chromium, driven by Playwright. `make browser-test`."""

import os
import random
import re
from contextlib import contextmanager
from uuid import UUID

import pytest
from browsing import PHONE, WAIT_MS, pixels, ready, strip
from make_logs import make_log
from musicbox_experiments.serve.engine import Engine
from musicbox_experiments.serve.service.app import create_app
from musicbox_experiments.serve.service.look import Looker
from playwright.sync_api import expect
from served_runs import TOKEN, served, write_training

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.pipeline import IngestConfig, ingest

pytestmark = pytest.mark.browser


def test_a_listener_of_ones_own(opened, engine):
    with opened() as page:
        ready(page)
        page.get_by_label("You", exact=True).check()
        expect(strip(page)).to_have_count(0)
        expect(page.get_by_role("button", name="Step")).to_be_hidden()
        name = engine.songs.name(5)
        page.get_by_label("Songs you heard").fill(name[:4] + name[5:])  # a letter is missing
        page.get_by_role("button", name=f"Kept: {name}").click()
        expect(strip(page)).to_have_count(1)
        card = page.get_by_role("article", name="Agent ddpg")
        first = card.locator("li").first
        text = first.inner_text().splitlines()[0]
        begins = re.compile("^" + re.escape(text))
        first.get_by_role("button", name="Skipped").click()
        expect(strip(page)).to_have_count(2)
        assert text in strip(page).last.inner_text()
        assert "skipped at once" in strip(page).last.inner_text()
        expect(card.locator("li").first).not_to_contain_text(begins)
        page.get_by_role("button", name="Back").click()
        expect(strip(page)).to_have_count(1)
        expect(card.locator("li").first).to_contain_text(begins)


def test_a_simulated_listener_plays_a_whole_session(opened):
    with opened() as page:
        ready(page)
        page.get_by_role("spinbutton", name="Listener").fill("3")
        page.get_by_role("spinbutton", name="Listener").press("Enter")
        expect(page.locator("#strip-text")).to_contain_text("0 recommended")
        expect(page.locator("#strip-text")).not_to_contain_text("below each")
        shown = strip(page).count()
        page.get_by_role("button", name="Play").click()
        expect(page.locator("#strip-text")).to_contain_text("The session is over", timeout=WAIT_MS)
        assert strip(page).count() > shown
        assert "chance of a skip" in strip(page).last.inner_text()
        expect(page.get_by_role("button", name="Step")).to_be_disabled()
        page.get_by_role("button", name="Back").click()
        expect(page.get_by_role("button", name="Step")).to_be_enabled()
        expect(page.locator("article header .faint").first).to_contain_text("kept")


@pytest.mark.parametrize("named", [True, False], ids=["named", "left out"])
def test_shares_stay_when_the_session_is_over(opened, engine, named):
    def at_the_end(route):
        look = route.fetch().json()
        if look["remaining"] == 0:
            empty = {"songs": [], "points": [], "near": []}
            look["agents"] = [{"agent": name, **empty} for name in engine.agents if named]
        route.fulfill(json=look)

    with opened() as page:
        page.route("**/v1/look", at_the_end)
        ready(page)
        while page.get_by_role("button", name="Step").is_enabled():
            heard = strip(page).count()
            page.keyboard.press("n")
            expect(strip(page)).not_to_have_count(heard)
        expect(page.get_by_role("status")).to_contain_text("The session is over")
        cards = page.locator("article")
        assert cards.count() == len(engine.agents)
        assert all("% kept" in text for text in page.locator("article header").all_inner_texts())
        assert all("The session is over." in text for text in cards.all_inner_texts())
        expect(page.locator("#map-text")).to_contain_text("The session is over")
        expect(page.locator("#map-text")).not_to_contain_text("proto-action")


def test_agents_are_switched_side_by_side(opened, engine):
    with opened() as page:
        ready(page)
        assert page.locator("article").count() == len(engine.agents)
        assert pixels(page, "catalog") >= len(engine.songs)
        page.wait_for_timeout(1_000)  # until the move is drawn
        before = pixels(page, "session")
        page.get_by_role("radio", name="popularity").check()
        expect(page.get_by_role("status")).to_contain_text("popularity would play")
        expect(page.locator("article.chosen h3")).to_have_text("popularity")
        page.wait_for_timeout(1_000)
        assert pixels(page, "session") < before  # it has neither a point nor songs around it
        songs = page.locator("article.chosen li").all_inner_texts()
        page.get_by_role("button", name="Step").click()
        expect(page.locator("#strip-text")).to_contain_text("3 recommended")
        heard = strip(page).all_inner_texts()[-3:]
        assert all(song.splitlines()[0] in bar for song, bar in zip(songs, heard, strict=True))


def test_by_keyboard_alone(opened, engine):
    with opened() as page:
        ready(page)
        page.keyboard.press("2")
        second = list(engine.agents)[1]
        expect(page.locator("article.chosen h3")).to_have_text(second)
        page.keyboard.press("n")
        expect(page.locator("#strip-text")).to_contain_text("3 recommended")
        page.keyboard.press("b")
        expect(page.locator("#strip-text")).to_contain_text("0 recommended")
        page.get_by_label("A simulated listener").focus()
        page.keyboard.press("ArrowDown")
        expect(page.get_by_label("Songs you heard")).to_be_visible()
        page.keyboard.press("/")
        page.keyboard.type(engine.songs.name(9))
        expect(page.locator("#found li").first).to_be_visible()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(strip(page)).to_have_count(1)
        focusable = "button, input, select, a[href]"
        hidden = page.evaluate(
            """all => [...document.querySelectorAll(all)].filter(one => one.tabIndex < 0).length""",
            focusable,
        )
        assert hidden == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(opened, scheme):
    with opened(color_scheme=scheme, **PHONE) as page:
        ready(page)
        for heard in (3, 6, 9):
            page.get_by_role("button", name="Step").click()
            expect(page.locator("#strip-text")).to_contain_text(f"{heard} recommended")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate("visualViewport.scale") == 1
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(part) for part in ground[4:-1].split(",")) / 3
        assert (brightness > 128) == (scheme == "light")
        assert pixels(page, "catalog") > 0
        strip(page).nth(2).tap()
        expect(page.locator("#strip-song")).to_contain_text("3. ")


def test_agents_stand_side_by_side_on_a_laptop(opened):
    with opened(viewport={"width": 1400, "height": 900}) as page:
        ready(page)
        boxes = [card.bounding_box() for card in page.locator("article").all()]
        first = [box for box in boxes if box["y"] == boxes[0]["y"]]
        assert len(first) >= 5
        assert first[0]["y"] < 650
        headers = [card.bounding_box()["height"] for card in page.locator("article header").all()]
        assert max(headers) < 1.5 * min(headers)


def test_a_song_of_the_map_is_named(opened, engine):
    with opened() as page:
        ready(page)
        page.get_by_role("button", name="Zoom in").click()
        page.get_by_role("button", name="Show all songs").click()
        box = page.locator("#session").bounding_box()
        for part in range(3, 18):  # somewhere across the middle lies a song
            at = {"x": box["width"] * part / 20, "y": box["height"] / 2}
            page.locator("#session").click(position=at)
        expect(page.locator("#picked")).to_contain_text("keep rate")


def test_all_that_can_be_used_has_a_name(opened):
    with opened() as page:
        ready(page)
        snapshot = page.locator("body").aria_snapshot()
        unnamed = [
            line
            for line in snapshot.splitlines()
            if line.strip(" -:") in ("button", "textbox", "combobox", "radio", "spinbutton", "img")
        ]
        assert unnamed == []
        assert 'meter "Chance of a skip' in snapshot
        assert 'application "Map of the catalog"' in snapshot


def test_titles_are_text_and_never_markup(opened):
    title = "<img src=x onerror=alert(1)><b>bold</b>"
    song = {"id": "x", "title": title, "artist": None, "row": 0, "keep_rate": 0.5}
    with opened() as page:
        ready(page)
        page.route("**/v1/tracks?*", lambda route: route.fulfill(json={"tracks": [song]}))
        page.get_by_label("You", exact=True).check()
        page.get_by_label("Songs you heard").fill("x")
        expect(page.locator("#found li .name")).to_have_text(title)
        assert page.locator("#found img, #found b").count() == 0


@pytest.fixture
def named(opened):
    """Opens a page whose first song of the first agent has a given name."""

    @contextmanager
    def open_page(title, artist=None, **options):
        def renamed(route):
            look = route.fetch().json()
            look["agents"][0]["songs"][0] |= {
                "title": title,
                "artist": artist,
                "nearest": title,
                "likeness": 0.5,
            }
            route.fulfill(json=look)

        with opened(**options) as page:
            page.route("**/v1/look", renamed)
            page.reload()
            ready(page)
            yield page

    return open_page


@pytest.mark.parametrize(
    "title", ["live \u202e erocs", "\u2069\u202eerocs", "\u05e9\u05d9\u05e8", "a\u2029\u202eb"]
)
def test_names_turn_no_text_around_them(named, title):
    def ends(page, text, part):
        """Where a part of a text ends, in pixels from the left."""
        return page.evaluate(
            """([text, part]) => {
                const box = document.querySelector(text);
                const all = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
                while (all.nextNode()) {
                    const at = all.currentNode.data.indexOf(part);
                    if (at < 0) continue;
                    const range = document.createRange();
                    range.setStart(all.currentNode, at);
                    range.setEnd(all.currentNode, at + part.length);
                    return range.getBoundingClientRect().right;
                }
            }""",
            [text, part],
        )

    with named(title, viewport={"width": 1400, "height": 900}) as page:
        second = page.locator("article").first.locator("li .name").nth(1).inner_text()
        parts = ["would", "play:", *second.split()]
        places = [ends(page, "#status", part) for part in parts]
        assert places == sorted(places)
        why = page.locator("article .why").first
        assert ends(page, "article .why", "(") < ends(page, "article .why", "(cosine")
        assert why.locator("bdi").count() == 1
        assert not re.search("[\u202a-\u202e]", page.locator("body").inner_text())


def test_a_long_name_is_cut(named):
    with named("Long " * 600, artist="Wordy " * 600, **PHONE) as page:
        page.get_by_label("You", exact=True).check()
        expect(page.get_by_role("button", name="Step")).to_be_hidden()
        song = page.locator("article li").first
        assert song.bounding_box()["height"] < 200
        assert page.get_by_role("status").bounding_box()["height"] < 60
        song.get_by_role("button", name="Kept").click()
        expect(strip(page)).to_have_count(1)


@pytest.fixture(scope="module")
def ids_alone(tmp_path_factory):
    """The address of agents of a log in the published form: ids of 38 characters, and no names."""
    folder, rng = tmp_path_factory.mktemp("published"), random.Random(0)
    log = make_log(300, num_tracks=150)
    ids = {name: f"t_{UUID(int=rng.getrandbits(128))}" for name in set(log["track_id_clean"])}
    log["track_id_clean"] = log["track_id_clean"].map(ids)
    log.to_csv(folder / "log.csv", index=False)
    ingest(IngestConfig((str(folder / "log.csv"),), folder / "data", workers=1, progress=False))
    for name in ("ddpg", "played-rate"):
        write_training(folder / "run", name, Dataset(folder / "data"), listener="replay")
    engine = Engine.open(folder / "run")
    with served(create_app(engine, Looker(engine))) as address:
        yield address, engine


def test_a_catalog_of_ids_alone_is_usable(opened, ids_alone):
    address, engine = ids_alone
    with opened(address, viewport={"width": 360, "height": 740}) as page:
        ready(page)
        page.get_by_role("button", name="Step").click()
        expect(page.locator("#strip-text")).to_contain_text("3 recommended")
        page.get_by_label("You", exact=True).check()
        wanted = engine.songs.id(7)
        page.get_by_label("search by parts of their ids").fill(wanted[10:20])
        page.get_by_role("button", name=f"Kept: {wanted}").click()
        expect(strip(page)).to_have_count(1)
        expect(page.get_by_role("article", name="Agent ddpg")).to_contain_text(f"): {wanted}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        cut = page.evaluate(
            "[...document.querySelectorAll('article li, #found li')]"
            ".filter(one => one.scrollWidth > one.clientWidth).length"
        )
        assert cut == 0
        if folder := os.environ.get("MUSICBOX_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/ids.png", full_page=True)


def test_a_token_is_asked_for(opened, guarded):
    with opened(guarded, expected_errors=1) as page:  # the browser reports the 401
        expect(page.get_by_role("status")).to_contain_text("Enter the token")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Enter").click()
        ready(page)
        expect(page.get_by_label("Token")).to_be_hidden()


NO_TOKEN = "A token holds letters without accents"
UNKNOWN_TOKEN = "The service knows no such token"


@pytest.mark.parametrize(
    ("wrong", "said", "refusals"),
    [
        ("пароль-из-шестнадцати", NO_TOKEN, 1),
        ("with a blank inside it", NO_TOKEN, 1),
        ("unknown-but-well-formed", UNKNOWN_TOKEN, 2),
    ],
)
def test_a_wrong_token_can_be_mended(opened, guarded, wrong, said, refusals):
    with opened(guarded, expected_errors=refusals + 1) as page:  # one more when it is loaded again
        page.get_by_label("Token").fill(wrong)
        page.get_by_role("button", name="Enter").click()
        expect(page.get_by_role("status")).to_contain_text(said)
        page.evaluate("text => sessionStorage.setItem('musicbox-token', text)", wrong)
        page.reload()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Enter").click()
        ready(page)


def test_operations_are_described_without_a_network(opened):
    with opened(path="/docs") as page:
        expect(page.get_by_role("heading", name="POST /v1/recommend")).to_be_visible()
        expect(page.get_by_role("heading", name="HeardSong")).to_be_visible()
        tracks = page.locator('[id="GET /v1/tracks"]')
        expect(tracks).to_contain_text("limit?: integer minimum 1 maximum 100 = 10")
        page.get_by_role("link", name="RecommendRequest").first.click()
        expect(page.get_by_role("heading", name="RecommendRequest")).to_be_in_viewport()
        expect(page.get_by_role("heading", name="Refusals")).to_be_visible()
        expect(page.locator("#Refusals li", has_text="413")).to_contain_text("too large")
