"""Hands on the page: double clicks, held keys, failures between, fingers, and the focus."""

import pytest
from browsing import PHONE, names, picture, ready, strip
from musicbox_experiments.serve.engine import Engine
from musicbox_experiments.serve.service.app import create_app
from musicbox_experiments.serve.service.look import Looker
from playwright.sync_api import expect
from served_runs import served

pytestmark = pytest.mark.browser


def kept_at(page, place=0):
    return page.locator("article").first.locator("li").nth(place).get_by_role("button", name="Kept")


def mark_one(page, engine):
    """Begin a session of one's own."""
    page.get_by_label("You", exact=True).check()
    page.get_by_label("Songs you heard").fill(engine.songs.name(5))
    page.get_by_role("button", name=f"Kept: {engine.songs.name(5)}").click()
    expect(strip(page)).to_have_count(1)


@pytest.mark.parametrize("hand", ["double click", "keys"])
def test_each_step_is_a_decision_of_its_own(opened, hand):
    with opened() as page:
        ready(page)
        if hand == "keys":
            for _ in range(3):
                page.keyboard.press("n")
        else:
            page.get_by_role("button", name="Step").dblclick()
        number = 9 if hand == "keys" else 6
        expect(page.locator("#strip-text")).to_contain_text(f"{number} recommended")
        assert len(set(names(page))) == number


def test_a_double_click_marks_once(opened, engine):
    with opened() as page:
        ready(page)
        mark_one(page, engine)
        kept_at(page).dblclick()
        expect(strip(page)).to_have_count(2)
        page.wait_for_timeout(500)
        page.get_by_label("Songs you heard").fill(engine.songs.name(9))
        page.get_by_role("button", name=f"Skipped: {engine.songs.name(9)}").dblclick()
        expect(strip(page)).to_have_count(3)
        page.wait_for_timeout(500)
        assert strip(page).count() == 3
        kept_at(page, 0).click()
        kept_at(page, 1).click()  # of what is shown by then
        expect(strip(page)).to_have_count(5)


def test_what_fails_changes_nothing(opened):
    refusals = []

    def refuse_once(route):
        if refusals:
            return route.continue_()
        refusals.append(route.request.post_data_json["played"])
        return route.fulfill(status=503, json={"detail": "Too many requests wait."})

    with opened(expected_errors=1) as page:
        ready(page)
        songs = page.locator("article").first.locator("li .name").all_inner_texts()
        page.route("**/v1/look", refuse_once)
        page.keyboard.press("n")
        page.keyboard.press("n")  # waits, and is dropped
        expect(page.get_by_role("status")).to_contain_text("Too many requests wait.")
        expect(page.locator("#strip-text")).to_contain_text("0 recommended")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("status")).to_contain_text("would play")
        expect(page.get_by_role("button", name="Try again")).to_be_hidden()
        page.keyboard.press("n")
        expect(page.locator("#strip-text")).to_contain_text("3 recommended")
        assert [name for name in names(page)] == songs
        assert len(refusals[0]) == len(songs)


def test_an_answer_that_never_comes_can_be_asked_for_again(opened):
    """As of a network that is lost without a word, or of a worker that was stopped."""
    with opened() as page:
        ready(page)
        page.clock.install()
        page.route("**/v1/look", lambda route: None)
        page.keyboard.press("n")
        page.clock.run_for(59_000)
        expect(page.get_by_role("status")).not_to_contain_text("does not answer")
        page.clock.run_for(2_000)
        expect(page.get_by_role("status")).to_contain_text("does not answer")
        page.unroute("**/v1/look")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("status")).to_contain_text("would play")
        page.keyboard.press("n")
        expect(page.locator("#strip-text")).to_contain_text("3 recommended")


def test_a_service_that_is_away_at_first_can_be_asked_again(opened):
    with opened(path="/docs", expected_errors=1) as page:
        page.route("**/v1/about", lambda route: route.abort())
        page.goto(page.url.replace("/docs", "/"))
        expect(page.get_by_role("status")).to_contain_text("does not answer")
        page.unroute("**/v1/about")
        page.get_by_role("button", name="Try again").click()
        ready(page)


def test_agents_of_a_run_that_was_replaced_take_the_place_of_those_before(
    opened, address, engine, run
):
    fewer = Engine.open(run, ["best-rate", "popularity"])
    with served(create_app(fewer, Looker(fewer))) as other, opened() as page:
        ready(page)
        page.get_by_role("radio", name="ddpg", exact=True).check()

        def elsewhere(route):
            route.continue_(url=route.request.url.replace(address, other))

        page.route("**/v1/*", elsewhere)
        page.keyboard.press("n")
        expect(page.locator("article")).to_have_count(2)
        expect(page.get_by_role("radio", name="best-rate")).to_be_checked()
        expect(page.get_by_role("status")).to_contain_text("best-rate would play")
        page.keyboard.press("2")
        page.keyboard.press("n")
        expect(page.locator("#strip-text")).to_contain_text("6 recommended")
        expect(page.get_by_role("status")).to_contain_text("popularity would play")


@pytest.mark.parametrize(
    ("path", "answer", "said"),
    [
        ("about", {"json": None}, "is not what was asked for"),
        ("about", {"status": 502, "json": None}, "The service answered 502"),
        ("about", {"status": 502, "json": {"detail": {}}}, "The service answered 502"),
        ("map", {"body": b"\5\0\0\0"}, "is not what was asked for"),
    ],
)
def test_answers_of_something_else_are_told_in_words(opened, path, answer, said):
    with opened(path="/docs", expected_errors=int("status" in answer)) as page:
        page.route(f"**/v1/{path}", lambda route: route.fulfill(**answer))
        page.goto(page.url.replace("/docs", "/"))
        expect(page.get_by_role("status")).to_contain_text(said)
        page.unroute(f"**/v1/{path}")
        page.get_by_role("button", name="Try again").click()
        ready(page)


def test_play_and_pause_leave_one_beat(opened):
    with opened() as page:
        ready(page)
        play = page.locator("#play")
        for _ in range(3):
            play.click()
        expect(page.locator("#strip-text")).to_contain_text("9 recommended")
        play.click()  # at once after the second beat; another player would have had its own by then
        page.wait_for_timeout(1_000)
        expect(page.locator("#strip-text")).to_contain_text("9 recommended")


def test_the_focus_stays_after_a_mark(opened, engine):
    with opened() as page:
        ready(page)
        page.get_by_label("You", exact=True).check()
        page.get_by_label("Songs you heard").fill(engine.songs.name(5))
        page.get_by_role("button", name=f"Kept: {engine.songs.name(5)}").press("Enter")
        expect(strip(page)).to_have_count(1)
        expect(page.get_by_label("Songs you heard")).to_be_focused()
        kept_at(page, 1).press("Enter")
        expect(strip(page)).to_have_count(2)
        expect(kept_at(page, 1)).to_be_focused()
        page.get_by_role("button", name="Back").press("Enter")
        page.get_by_role("button", name="Back").press("Enter")
        expect(strip(page)).to_have_count(0)
        expect(page.get_by_role("button", name="Start anew")).to_be_focused()


def test_bars_are_named_by_keyboard(opened):
    with opened() as page:
        ready(page)
        page.keyboard.press("n")
        expect(page.locator("#strip-text")).to_contain_text("3 recommended")
        page.locator("#strip button[tabindex='0']").focus()
        song = page.locator("#strip-song")
        expect(song).to_contain_text(names(page)[-1])
        page.keyboard.press("ArrowLeft")
        expect(song).to_contain_text(names(page)[-2])
        page.keyboard.press("Home")
        expect(song).to_contain_text("1. ")
        assert page.locator("#strip button[tabindex='0']").count() == 1
        page.keyboard.press("n")  # with other bars the focus is where it was
        expect(page.locator("#strip-text")).to_contain_text("6 recommended")
        expect(page.locator("#strip button").first).to_be_focused()


def test_a_song_is_found_on_the_map_beside_a_simulated_listener(opened, engine):
    with opened() as page:
        ready(page)
        page.keyboard.press("/")
        page.keyboard.type(engine.songs.name(9))
        page.get_by_role("button", name=f"Show on the map: {engine.songs.name(9)}").click()
        expect(page.locator("#picked .name")).to_have_text(engine.songs.name(9))
        expect(page.get_by_role("status")).to_contain_text("found.")
        page.get_by_role("searchbox").fill("zzqqxx")
        expect(page.locator("#found")).to_have_text("No song of the catalog is called so.")


def test_the_map_by_keyboard(opened):
    with opened() as page:
        ready(page)
        page.locator("#map").focus()
        seen = [picture(page)]
        for key in ("ArrowRight", "ArrowDown", "+", "-"):
            page.keyboard.press(key)
            seen.append(picture(page))
        assert len(set(seen)) >= 4
        for _ in range(40):  # no key leads away from all songs
            page.keyboard.press("ArrowRight")
        assert picture(page) != seen[0]
        page.keyboard.press("Enter")
        expect(page.locator("#picked")).to_contain_text("keep rate")
        page.keyboard.press("0")
        assert picture(page) == seen[0]


def test_the_wheel_scrolls_the_page_and_zooms_with_ctrl(opened):
    with opened(viewport={"width": 1100, "height": 500}) as page:
        ready(page)
        before = picture(page)
        page.locator("#map").hover()
        page.mouse.wheel(0, 200)
        page.wait_for_function("scrollY > 0")
        assert picture(page) == before
        page.locator("#map").hover()
        page.keyboard.down("Control")
        page.mouse.wheel(0, -200)
        page.keyboard.up("Control")
        page.wait_for_timeout(300)
        assert picture(page) != before
        assert page.evaluate("visualViewport.scale") == 1


def test_fingers_on_the_map(opened):
    with opened(**PHONE) as page:
        ready(page)
        page.locator("#map").scroll_into_view_if_needed()
        box, before = page.locator("#map").bounding_box(), picture(page)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        hand = page.context.new_cdp_session(page)

        def touch(kind, *points):
            places = [{"x": px, "y": py, "id": i} for i, (px, py) in enumerate(points)]
            hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

        touch("touchStart", (x - 20, y), (x + 20, y))
        for apart in (30, 40, 60, 80):
            touch("touchMove", (x - apart, y), (x + apart, y))
        touch("touchEnd")
        page.wait_for_timeout(300)
        assert picture(page) != before
        assert page.evaluate("visualViewport.scale") == 1
        zoomed, scrolled = picture(page), page.evaluate("scrollY")
        touch("touchStart", (x, y))
        for up in range(0, 160, 16):
            touch("touchMove", (x, y - up))
            page.wait_for_timeout(20)
        touch("touchEnd")
        page.wait_for_timeout(300)
        assert page.evaluate("scrollY") > scrolled + 50
        assert picture(page) == zoomed
