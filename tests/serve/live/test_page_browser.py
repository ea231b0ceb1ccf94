"""The page as a person uses it, in Chromium: keys, touch and clicks."""

import os
from pathlib import Path

import pytest

from rlcar.registry import Registry
from serve.delivery.operator import Operator
from serve.delivery.specification import parse_specification
from serve.guard.tokens import TokenStore
from serve.live.loaded_policy import first_action
from serve.live.wire import RUNNING
from serve.policy.policy import try_model
from tests.serve.live.live_page import paged, save_run
from tests.serve.served import publish
from tests.support.hand_made_versions import publish_constant
from tests.support.target_environment import ID, SIZE_PX
from tests.support.waiting import wait_until

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium: apt-get install chromium"),
]
# A folder for screenshots that a person can look at, if it is set.
SHOTS = os.environ.get("RLCAR_SCREENSHOTS")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    run = save_run(folder / "runs" / "begun", 128)
    for seed in range(2):
        publish(folder / "models", seed)
    with paged(folder / "models", run) as page:
        wait_until(lambda: page.live.drive.dreamer is not None)
        yield page


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, page):
    """Opens the page in a new browser; fails if the console shows a message."""
    contexts, complaints = [], []

    def open_it(gamepad=None, **options):
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        context = chromium.new_context(**options)
        contexts.append(context)
        tab = context.new_page()
        if gamepad:
            tab.add_init_script(gamepad)
        tab.on("console", lambda said: complaints.append(said.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda asked: _is_ours(asked.url, page) or complaints.append(asked.url))
        tab.goto(f"http://{page.address}/")
        until(tab, "document.querySelector('#track-seed').textContent !== '–'")
        return tab

    page.live.drive.is_running = page.live.drive.is_manual = False
    page.live.broadcast_state()
    yield open_it
    for context in contexts:
        context.close()
    wait_until(lambda: page.live.manual_control.driver is None)
    assert complaints == []


def _is_ours(url, page):
    return url.startswith((f"http://{page.address}/", "data:"))


def until(tab, expression):
    """Waits for JavaScript to be true; Playwright's own way would need eval, which is forbidden."""
    wait_until(lambda: tab.evaluate(expression))


def _shot(tab, name):
    if SHOTS:
        tab.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def test_a_person_drives_with_the_arrow_keys(open_page, page):
    tab = open_page()
    tab.get_by_role("button", name="Drive by hand").click()
    tab.locator("#overlay-start").click()
    tab.get_by_text("You have control").wait_for()
    tab.keyboard.down("ArrowUp")
    wait_until(lambda: page.live.drive.car.pose.speed_px_per_step > 1.0)
    wait_until(lambda: page.live.drive.car.action.tolist() == [0.0, 1.0])
    tab.keyboard.down("ArrowLeft")  # several at once
    wait_until(lambda: page.live.drive.car.action.tolist() == [1.0, 1.0])
    until(tab, "Number(document.querySelector('#speed').textContent) > 0.5")
    tab.keyboard.up("ArrowUp")
    tab.keyboard.up("ArrowLeft")
    wait_until(lambda: page.live.drive.car.action.tolist() == [0.0, 0.0])
    _shot(tab, "by-hand-1280")


def test_the_policy_drives_dreams_and_is_watched_at_the_screens_own_pace(open_page, page):
    tab = open_page()
    tab.locator("#overlay-start").click()
    wait_until(lambda: page.live.drive.tick().flags & RUNNING and page.live.drive.car.steps > 10)
    assert tab.locator("#policy").text_content() == "begun at 128 env steps"
    until(tab, "document.querySelector('#dream-error').textContent !== ''")
    tab.locator("#ahead").fill("30")
    until(tab, "document.querySelector('#ahead-value').textContent === '30'")
    for canvas in ("#road", "#fan", "#strip", "#latent"):
        wait_until(lambda canvas=canvas: tab.evaluate(_COLOURS, canvas) > 2)
    until(tab, "Number(document.querySelector('#road').dataset.framesPerS) > 10")
    assert tab.evaluate(_REWRITTEN) == 0
    tab.get_by_role("button", name="Drive by hand").click()
    tab.get_by_role("button", name="Let the policy drive").click()
    wait_until(lambda: not page.live.drive.is_manual)
    tab.locator("#start").click()
    wait_until(lambda: not page.live.drive.is_running)


# Counts how often the chip of manual control is written during 20 frames without a change.
_REWRITTEN = """() => new Promise((done) => {
  let writes = 0, frames = 0;
  new MutationObserver((all) => { writes += all.length; })
    .observe(document.querySelector("#control-state"), { attributes: true, childList: true });
  const count = () => ++frames < 20 ? requestAnimationFrame(count) : done(writes);
  requestAnimationFrame(count);
})"""
_COLOURS = """(canvas) => {
  const place = document.querySelector(canvas);
  const pixels = place.getContext("2d").getImageData(0, 0, place.width, place.height).data;
  return new Set(new Uint32Array(pixels.buffer)).size;
}"""


def test_versions_are_saved_loaded_and_raced_against(open_page, page):
    tab = open_page()
    tab.get_by_role("button", name="Save as a new version").click()
    tab.get_by_text("Saved as version 3").wait_for()
    tab.locator("#versions option[value='3']").wait_for(state="attached")
    tab.evaluate(_OBSERVE, "#message")
    for newest in (3, 4):
        page.live.viewers.send_message("versions", newest=newest)
    until(tab, "window.said.includes('Version 4 was published.')")
    assert "Version 3 was published." not in tab.evaluate(
        "window.said"
    )  # the page that saved it already showed the result
    _load(tab, "1")
    assert page.live.state()["version"] == 1
    tab.locator("#ghosts").select_option("2")
    tab.get_by_role("button", name="Set", exact=True).click()
    tab.get_by_text("version 2 is the ghost now").wait_for()
    tab.locator("#overlay-start").click()
    tab.locator("#duels tbody tr").first.wait_for(timeout=60_000)
    assert "version 2" in tab.locator("#duels").text_content()
    _shot(tab, "duel-1280")
    tab.locator("#ghosts").select_option("")
    tab.get_by_role("button", name="Set", exact=True).click()
    _load(tab, "live")
    wait_until(lambda: page.live.follows)


def _load(tab, file):
    tab.locator(f"#versions option[value='{file}']").wait_for(state="attached")
    tab.locator("#versions").select_option(file)
    tab.get_by_role("button", name="Load", exact=True).click()
    tab.get_by_text("drives now").wait_for()


def test_moving_an_observation_moves_the_action(open_page, page):
    tab = open_page()
    _load(tab, "1")
    for left, right in ((0.05, 1.0), (1.0, 0.05)):
        tab.get_by_role("slider", name="Ray 45° left").fill(str(left))
        tab.get_by_role("slider", name="Ray 45° right").fill(str(right))
        seen = [right, 0.7, 1.0, 0.7, left, 0.6]
        steering, throttle = first_action(page.live.drive.policy.loaded, seen)
        wanted = f"{'right' if steering < 0 else 'left'} {abs(steering):.2f}"
        until(tab, f"document.querySelector('#try-steering output').textContent === '{wanted}'")
        wanted = f"{'go' if throttle >= 0 else 'brake'} {abs(throttle):.2f}"
        until(tab, f"document.querySelector('#try-throttle output').textContent === '{wanted}'")
    _load(tab, "live")


def test_a_second_page_watches_until_control_is_free(open_page, page):
    ann, bob = open_page(), open_page()
    ann.get_by_role("button", name="Take control").click()
    ann.get_by_text("You have control").wait_for()
    bob.get_by_text("Watching: somebody else drives").wait_for()
    assert bob.locator("#start").is_disabled()
    ann.get_by_role("button", name="Release control").click()
    bob.get_by_role("button", name="Take control").click()
    bob.get_by_text("You have control").wait_for()


def test_a_gamepad_steers_by_its_stick_and_drives_by_its_triggers(open_page, page):
    tab = open_page(gamepad=_GAMEPAD)
    tab.get_by_role("button", name="Drive by hand").click()
    tab.locator("#overlay-start").click()
    wait_until(lambda: page.live.drive.car.action.tolist() == [-0.5, 0.75])


# A simulated gamepad, as the browser reports one with its stick half to the right and a trigger
# pressed by three quarters.
_GAMEPAD = """navigator.getGamepads = () => [null, {
  axes: [0.5, 0.02], buttons: [0, 0, 0, 0, 0, 0, 0, 0.75].map((value) => ({ value })),
}]"""


def test_everything_is_reached_by_the_keyboard_alone_in_a_sensible_order(open_page, page):
    tab = open_page()
    reached = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.tagName"))
    order = [
        *("control-button", "overlay-start", "start", "reset", "manual", "next-track"),
        *("try-now", "versions", "load", "ghosts", "ghost", "save", "ahead"),
    ]
    places = [reached.index(name) for name in order]
    assert places == sorted(places), reached
    assert tab.evaluate(_NAMELESS) == []
    tab.locator("#start").focus()
    tab.keyboard.press("Enter")
    tab.get_by_role("button", name="Stop").wait_for()
    tab.keyboard.press("m")
    wait_until(lambda: page.live.drive.is_manual)
    tab.keyboard.press("p")
    wait_until(lambda: not page.live.drive.is_running)


# Returns controls without a name for screen readers.
_NAMELESS = """() => [...document.querySelectorAll("button, input, select, canvas, [role=meter]")]
  .filter((one) => !one.ariaLabel && !one.textContent.trim() && !one.labels?.length)
  .map((one) => one.outerHTML)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_cut_off_and_a_thumb_drives(open_page, page, scheme):
    tab = open_page(
        viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True, is_mobile=True
    )
    tab.locator("#manual").click()
    tab.locator("#overlay-start").click()
    gas = tab.get_by_role("button", name="Accelerate")
    gas.dispatch_event("pointerdown", {"pointerId": 1})
    wait_until(lambda: page.live.drive.car.action[1] == 1.0)
    gas.dispatch_event("pointerup", {"pointerId": 1})
    wait_until(lambda: page.live.drive.car.action[1] <= 0.0)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.evaluate(_CUT_OFF) == []
    _shot(tab, f"phone-{scheme}")


# Returns elements whose text does not fit, and elements outside the screen.
_CUT_OFF = """() => [...document.querySelectorAll("button, dd, dt, p, h1, h2, label, td, th")]
  .filter((one) => one.offsetParent && !["skip", "unseen"].includes(one.className))
  .filter((one) => one.scrollWidth > one.clientWidth + 1
    || one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => one.outerHTML.slice(0, 120))"""


def test_a_lost_connection_is_shown_and_comes_back(open_page, page):
    tab = open_page()
    tab.evaluate(_OBSERVE, "#control-state")
    for viewer in list(page.live.viewers._all.values()):
        viewer.is_gone = True
        viewer.send_message("{}")
    until(tab, "window.said.length >= 2")
    lost, *_, back = tab.evaluate("window.said")
    assert lost == "Connection lost, trying again"
    assert back == "Nobody has control"


def test_before_it_is_greeted_the_page_takes_no_commands(chromium, page):
    """Before the hello message a command would count as another client's."""
    page.live.drive.is_running = page.live.drive.is_manual = False
    with chromium.new_context() as context:
        tab = context.new_page()
        tab.add_init_script("window.WebSocket = class {};")
        tab.goto(f"http://{page.address}/")
        assert tab.locator("#control-state").text_content() == "Connecting"
        tab.keyboard.press("m")
        for button in ("start", "overlay-start", "manual", "save"):
            assert tab.locator(f"#{button}").is_disabled()
        assert not page.live.drive.is_manual


def test_the_page_shows_a_rollout_and_aborts_it(open_page, page):
    folder = page.server.config.app.app.settings.registry
    operator = Operator(Registry(folder), "champion", "me")
    steps = [{"setWeight": 10}, {"pause": {}}]
    tab = open_page()
    assert tab.locator("#rollout").is_hidden()
    operator.start(1, parse_specification({"strategy": {"canary": {"steps": steps}}}), try_model)
    card = tab.locator("#rollout")
    card.get_by_text("Paused", exact=True).wait_for()
    for text in ("Version 2 to 1", "Step 2 of 2: pause until resumed", "10 % of the sessions"):
        card.get_by_text(text).wait_for()
    assert card.get_by_role("row").count() == 3
    assert card.get_by_role("button").all_inner_texts() == ["Resume", "Promote", "Abort"]
    _shot(tab, "rollout")
    tab.once("dialog", lambda dialog: dialog.accept())
    card.get_by_role("button", name="Abort").click()
    card.get_by_text("Degraded", exact=True).wait_for()
    card.get_by_text("abort on the live page").wait_for()
    assert card.get_by_role("button").count() == 0
    assert operator.read().state.phase == "Degraded"


# Records every text of an element.
_OBSERVE = """(place) => {
  window.said = [];
  const seen = document.querySelector(place);
  new MutationObserver(() => window.said.push(seen.textContent))
    .observe(seen, { childList: true, characterData: true });
}"""


def test_another_environment_is_shown_by_its_pictures(chromium, tmp_path):
    publish_constant(tmp_path / "models", ID, 0.9)
    Registry(tmp_path / "models").promote(1)
    complaints = []
    with paged(tmp_path / "models") as page:
        tab = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
        tab.on("console", lambda said: complaints.append(said.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(f"http://{page.address}/")
        until(tab, "document.querySelector('#environment').textContent.includes('Target-v0')")
        assert tab.locator("#scene").is_visible()
        for part in ("#road", "#touch", "#next-track", ".try", "#ghosts", "#keys-hint"):
            assert not tab.locator(part).is_visible(), part
        assert tab.locator("#manual").is_disabled()
        assert "Only in the race" in tab.locator("#manual").get_attribute("title")
        tab.locator("#overlay-start").click()
        until(tab, "document.querySelector('#scene-successes').textContent.startsWith('1 of')")
        until(tab, "Number(document.querySelector('#scene-reward').textContent) > 0.5")
        # The point is yellow, on grey ground.
        pixels = "[...document.querySelector('#scene').getContext('2d')"
        row = f"{pixels}.getImageData(0, 45, 120, 1).data]"
        until(tab, f"{row}.some((value) => value > 200 && value < 255)")
        assert tab.evaluate("document.querySelector('#scene').width") == SIZE_PX[1]
        tab.keyboard.press("n")
        tab.keyboard.press("m")
        _shot(tab, "scene-1280")
        tab.context.close()
    assert complaints == []


@pytest.mark.long
def test_behind_a_login_the_page_drives_too(chromium, tmp_path):
    store = TokenStore(tmp_path / "tokens.json")
    driver, watcher = store.create("ann", ["admin"]), store.create("bob", ["read"])
    publish(tmp_path / "models", 1)
    with paged(tmp_path / "models", auth=True, tokens=tmp_path / "tokens.json") as page:
        assert page.web.get("/").status_code == 401
        for name, secret in (("ann", driver), ("bob", watcher)):
            login = {"username": name, "password": secret}
            context = chromium.new_context(http_credentials=login)
            tab = context.new_page()
            tab.goto(f"http://{page.address}/")
            tab.get_by_role("button", name="Drive by hand").click()
            if name == "bob":
                tab.get_by_text("this token lacks the scope drive").wait_for()
                assert not page.live.drive.is_manual
            else:
                tab.get_by_text("You have control").wait_for()
                tab.get_by_role("button", name="Let the policy drive").click()
                wait_until(lambda: not page.live.drive.is_manual)
                tab.get_by_role("button", name="Save as a new version").click()
                tab.get_by_text("Saved as version 2").wait_for()
            context.close()
            wait_until(lambda: page.live.manual_control.driver is None)
