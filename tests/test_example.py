"""docs/example.html in a real browser: from another origin, behind nginx, below a path, by keyboard, barrier-free."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect

from tests.nginx import foreign_nginx
from tests.npm import install
from tests.people import make_token
from tests.relay import Fault, Relay
from tests.servers import PATIENCE, PROJECT, copy_project, run, serving
from tests.stage import Stage, chromium, front_end, listening, service

pytestmark = pytest.mark.slow

EXAMPLE = PROJECT / "docs" / "example.html"
MISSING = "0f8fad5b-d9cb-469f-a165-70867728950e"
PHONE, DESK = {"width": 320, "height": 640}, {"width": 1200, "height": 800}
expect.set_options(timeout=PATIENCE * 1000)


class Tab:
    """The page in a tab, and a user with a token."""

    def __init__(self, stage: Stage, url: str, **options: Any) -> None:
        self.stage, self.token = stage, make_token()
        self.page: Page = stage.browser.new_context(**options).new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.requests: list[str] = []
        self.problems: list[str] = []  # a policy, a script
        self.under_way: set[Request] = set()
        self.page.on("request", self.note)
        self.page.on("requestfinished", self.note_end)
        self.page.on("requestfailed", self.note_end)
        self.page.on("console", self.note_error)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(url)

    def note(self, request: Request) -> None:
        """Remember what the page asks the service."""
        if "/api/" in request.url:
            self.requests.append(f"{request.method} /api/{request.url.partition('/api/')[2]}")
            self.under_way.add(request)

    def note_end(self, request: Request) -> None:
        """A request has its answer, or failed."""
        self.under_way.discard(request)

    def note_error(self, message: ConsoleMessage) -> None:
        """Remember what the browser complains of."""
        if message.type == "error":
            self.problems.append(message.text)

    def show(self, address: str | None = None, token: str | None = None) -> None:
        """Fill in the first form."""
        if address:
            self.page.get_by_label("Address of the service").fill(address)
        self.page.get_by_label("Token", exact=True).fill(token or self.token)
        self.page.get_by_role("button", name="Show tasks").click()

    def settle(self) -> None:
        """Wait until the page has asked what it wants to ask, and has its answers."""
        asked = -1
        while self.under_way or asked != len(self.requests):
            asked = len(self.requests)
            self.page.wait_for_timeout(50)  # milliseconds: an answer may lead to the next request

    def titles(self) -> list[str]:
        """Return the titles in the list, from top to bottom."""
        return self.page.locator("li .title").all_text_contents()

    def error(self) -> Locator:
        """Return the place where an error shows."""
        return self.page.get_by_role("alert")

    def call(self, method: str, path: str = "", body: object = None) -> Any:
        """Be another client of the same user."""
        return self.stage.server.fetch(method, f"/api/tasks{path}", body, Authorization=f"Bearer {self.token}")[1]

    def make(self, *titles: str, **fields: Any) -> Any:
        """Create tasks, and return the last one."""
        for title in titles:
            task = self.call("POST", body={"title": title} | fields)
        return task


@pytest.fixture(scope="module")
def stage(sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for the module, in debug mode, as only that serves the page."""
    folder = tmp_path_factory.mktemp("stage")
    url = f"sqlite:///{folder / 'taskapi.sqlite3'}"
    with closing(sqlite3.connect(sqlite_file)) as template, closing(sqlite3.connect(url[10:])) as database:
        template.backup(database)
    with chromium() as browser, front_end() as home, service(folder, url, home, FLASK_DEBUG="1") as server:
        yield Stage(browser, home, server)


@pytest.fixture(autouse=True)
def pages_are_closed(stage: Stage) -> Iterator[None]:
    """A test leaves no page open."""
    yield
    for context in stage.browser.contexts:
        context.close()


@pytest.fixture
def relay(stage: Stage) -> Iterator[Relay]:
    """Before the service, without a fault as yet."""
    relay = Relay(stage.server.port)
    with listening(relay):
        yield relay


@pytest.fixture
def tab(stage: Stage, relay: Relay) -> Tab:
    """The page from another origin, with three tasks in its list."""
    tab = Tab(stage, f"{stage.home}/example.html")
    tab.make("a", "b", "c")
    tab.show(f"http://127.0.0.1:{relay.server_port}")
    expect(tab.page.get_by_role("status")).to_have_text("3 tasks")
    tab.requests.clear()
    return tab


@pytest.fixture(params=["other origin", "nginx", "nginx and other origin", "mounted"])
def place(request: pytest.FixtureRequest, stage: Stage, tmp_path: Path) -> Iterator[tuple[str, str | None]]:
    """Where the page is, and the service's address, where the page does not know that by itself."""
    if request.param == "other origin":
        yield f"{stage.home}/example.html", f"http://127.0.0.1:{stage.server.port}"
    elif request.param == "mounted":
        # On the same database, so that the test can look at it through the other one.
        url = f"sqlite:///{stage.server.stdout.with_name('taskapi.sqlite3')}"
        with service(tmp_path, url, stage.home, FLASK_DEBUG="1", SCRIPT_NAME="/mount") as mounted:
            yield f"http://127.0.0.1:{mounted.port}/mount/example", None
    else:
        with foreign_nginx(tmp_path, stage.server.port) as port:
            backend = f"http://127.0.0.1:{port}/backend"
            yield (f"{backend}/example", None) if request.param == "nginx" else (f"{stage.home}/example.html", backend)


def test_whole_journey(stage: Stage, place: tuple[str, str | None]) -> None:
    """List, More, add, done mark, edit, delete, undo, search and filter, with page and service on each path."""
    url, address = place
    tab = Tab(stage, url)
    page = tab.page
    tab.make(*[f"Task {number}" for number in range(55)])

    tab.show(address)
    expect(page.get_by_role("status")).to_have_text("50 tasks, and more")
    page.get_by_role("button", name="More").click()
    expect(page.get_by_role("status")).to_have_text("55 tasks")
    assert tab.titles() == [f"Task {number}" for number in reversed(range(55))]
    expect(page.get_by_label("Task 4, done")).to_be_focused()
    expect(page.get_by_role("button", name="More")).to_be_hidden()

    page.get_by_label("New task").fill("  Water the plants ")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status")).to_have_text("56 tasks")
    assert tab.titles()[:2] == ["Water the plants", "Task 54"]

    tab.requests.clear()
    page.get_by_label("Water the plants, done").check()
    expect(page.locator("li[inert]")).to_have_count(0)
    page.get_by_role("button", name="Water the plants, edit").click()
    page.get_by_role("textbox", name="Title").fill("Water the fern")
    page.get_by_role("textbox", name="Title").press("Enter")
    expect(page.get_by_role("button", name="Water the fern, edit")).to_be_focused()
    tab.settle()
    task = tab.call("GET", "?limit=1")[0]
    assert (task["title"], task["is_completed"]) == ("Water the fern", True)
    assert tab.requests == [f"PATCH /api/tasks/{task['id']}"] * 2

    page.get_by_role("button", name="Delete Water the fern").click()
    expect(page.get_by_role("button", name="Undo: delete Water the fern")).to_be_focused()
    assert [tab.call("GET", "?limit=1")[0]["title"], tab.titles()[0]] == ["Task 54", "Task 54"]
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Water the fern, edit")).to_be_focused()
    expect(page.get_by_label("Water the fern, done")).to_be_checked()
    assert tab.call("GET", "?limit=1")[0]["id"] == task["id"]

    page.get_by_label("Search").fill("FERN")
    expect(page.get_by_role("status")).to_have_text("1 task")
    page.get_by_label("Show").select_option("Open")
    expect(page.get_by_role("status")).to_have_text("No tasks")
    page.get_by_label("Search").fill("")
    expect(page.get_by_role("status")).to_have_text("50 tasks, and more")
    page.get_by_role("button", name="More").click()
    expect(page.get_by_role("status")).to_have_text("55 tasks")
    assert tab.problems == []


def test_newcomer_sees_tasks_after_three_commands(stage: Stage, tmp_path: Path) -> None:
    """As docs/frontend.md has it: a database, a token, the page that `flask run` serves."""
    copy_project(tmp_path)
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path / 'first.sqlite3'}", "HOME": str(tmp_path)}
    assert run("flask", "db", "upgrade", cwd=tmp_path, **settings).returncode == 0
    token = run("flask", "token", "ana@example.com", cwd=tmp_path, **settings).stdout
    with serving("flask", "run", "--no-reload", "--port", "0", cwd=tmp_path, **settings) as server:
        tab = Tab(stage, f"http://127.0.0.1:{server.port}/example")
        tab.show(token=token)
        expect(tab.page.get_by_role("status")).to_have_text("No tasks")
        tab.page.get_by_label("New task").fill("Water the plants")
        tab.page.get_by_label("New task").press("Enter")
        expect(tab.page.get_by_role("status")).to_have_text("1 task")
        tab.settle()
        tab.page.context.close()

        [task] = server.fetch("GET", "/api/tasks", Authorization=f"Bearer {token.strip()}")[1]
    assert (task["title"], tab.problems) == ("Water the plants", [])


def test_keyboard_is_enough(stage: Stage, relay: Relay) -> None:
    """Tab, Enter, Space and Escape do everything, and the focus is never lost."""
    tab = Tab(stage, f"http://127.0.0.1:{stage.server.port}/example")
    keys = tab.page.keyboard

    def focus() -> Any:
        return tab.page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.name")

    def press(*names: str) -> None:
        for name in names:
            keys.press(name)

    press("Tab", "Tab")
    assert focus() == "token"
    keys.insert_text(tab.token)
    press("Enter")
    expect(tab.page.locator("summary")).to_be_focused()
    expect(tab.page.get_by_role("status")).to_have_text("No tasks")
    press("Tab")
    keys.type("Water the plants")
    press("Enter")
    expect(tab.page.locator("li:not([inert])")).to_have_count(1)
    press("Tab", "Tab", "Tab", "Tab")
    assert focus() == "Water the plants, done"
    press("Space")
    tab.settle()  # else the next change meets a version that has passed, which the browser notes as an error
    press("Tab", "Enter")
    assert focus() == "Title"
    keys.type(" and more")
    press("Escape")
    assert (focus(), tab.titles()) == ("Water the plants, edit", ["Water the plants"])
    press("Enter")
    keys.insert_text("Water the fern")
    press("Tab")
    expect(tab.page.get_by_role("button", name="Delete")).to_be_focused()
    expect(tab.page.get_by_role("button", name="Delete Water the")).to_have_accessible_name(re.compile("fern"))
    tab.settle()
    [task] = tab.call("GET")
    assert (task["title"], task["is_completed"]) == ("Water the plantsWater the fern", True)
    press("Enter")
    expect(tab.page.get_by_role("button", name="Undo")).to_be_focused()
    press("Enter")
    expect(tab.page.get_by_role("button", name="edit")).to_be_focused()
    assert (len(tab.call("GET")), tab.problems) == (1, [])


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_has_no_barrier(stage: Stage, relay: Relay, folder: Path, viewport: Any, scheme: str) -> None:
    """axe finds nothing in any state of the page, and nothing is wider than the screen."""
    axe = (install(PROJECT / "tests" / "client", folder / "client-packages") / "axe-core" / "axe.min.js").read_text()
    tab = Tab(stage, f"{stage.home}/example.html", viewport=viewport, color_scheme=scheme)
    page = tab.page

    def look() -> None:
        page.evaluate(axe)
        found = page.evaluate("async () => (await axe.run({ resultTypes: ['violations'] }))")
        violations = [(rule["id"], node["html"]) for rule in found["violations"] for node in rule["nodes"]]
        assert violations == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    look()
    tab.make("x" * 200, description="One line\nand another")
    tab.make("a done one", is_completed=True)
    tab.make("an open one", "to delete")
    tab.show(f"http://127.0.0.1:{relay.server_port}")
    expect(page.get_by_role("status")).to_have_text("4 tasks")
    look()
    page.get_by_role("button", name="Delete to delete").click()
    page.get_by_role("button", name="an open one, edit").click()
    page.get_by_role("textbox", name="Title").fill(" ")
    page.get_by_role("textbox", name="Title").press("Enter")
    expect(tab.error()).to_have_text("title: Give a title of 1 to 200 characters.")
    look()
    page.mouse.wheel(0, 500)
    expect(tab.error()).to_be_in_viewport()


def test_task_is_on_the_page_before_it_is_stored(tab: Tab, relay: Relay) -> None:
    """At the top, and not to be touched; when it is stored, it can be."""
    relay.held["/api/tasks"] = Event()
    tab.page.get_by_label("New task").fill("d")
    tab.page.get_by_label("New task").press("Enter")

    expect(tab.page.locator("li[inert]")).to_have_count(1)
    assert (tab.titles(), len(tab.call("GET"))) == (["d", "c", "b", "a"], 3)
    relay.held["/api/tasks"].set()
    expect(tab.page.locator("li[inert]")).to_have_count(0)
    assert [task["title"] for task in tab.call("GET")] == tab.titles()


def test_refused_task_goes_and_its_text_stays(tab: Tab) -> None:
    """The person reads the service's sentence, and can correct the text."""
    tab.page.get_by_label("New task").fill("x" * 201)
    tab.page.get_by_label("New task").press("Enter")

    expect(tab.error()).to_have_text("title: Give a title of 1 to 200 characters.")
    expect(tab.page.get_by_label("New task")).to_have_value("x" * 201)
    assert tab.titles() == ["c", "b", "a"]


def test_lost_answer_makes_no_second_task(tab: Tab, relay: Relay) -> None:
    """The page asks again with the same id."""
    relay.faults["POST"] = [Fault(0), Fault(status=502)]
    tab.page.get_by_label("New task").fill("d")
    tab.page.get_by_label("New task").press("Enter")

    expect(tab.page.locator("li[inert]")).to_have_count(1)
    expect(tab.page.locator("li[inert]")).to_have_count(0)
    assert [task["title"] for task in tab.call("GET")] == tab.titles() == ["d", "c", "b", "a"]
    assert relay.count("POST") == 3


def test_search_aborts_the_one_before(tab: Tab, relay: Relay) -> None:
    """A slow answer to an older search never replaces a newer one's."""
    aborted: list[str] = []
    tab.page.on("requestfailed", lambda request: aborted.append(request.url.partition("?")[2]))
    relay.held["q=a"] = Event()

    with tab.page.expect_request(lambda request: "q=a" in request.url and request.method == "GET"):
        tab.page.get_by_label("Search").fill("a")
    tab.page.get_by_label("Search").fill("b")
    expect(tab.page.get_by_role("status")).to_have_text("1 task")
    relay.held["q=a"].set()

    assert (tab.titles(), aborted) == (["b"], ["q=a"])
    expect(tab.error()).to_be_empty()


def test_expired_token_is_renewed_and_the_request_repeated_once(stage: Stage, relay: Relay) -> None:
    """The page asks for a new token, and then goes on; where that has expired too, it says so."""
    tab = Tab(stage, f"{stage.home}/example.html")
    tab.make("a")
    tab.show(f"http://127.0.0.1:{relay.server_port}", make_token(exp=1))

    expect(tab.error()).to_have_text("The token has expired. Paste a new one, and the page goes on where it was.")
    expect(tab.page.get_by_label("Token", exact=True)).to_be_focused()
    tab.show()
    expect(tab.page.get_by_role("status")).to_have_text("1 task")
    assert (tab.titles(), relay.count("GET")) == (["a"], 2)
    expect(tab.error()).to_be_empty()
    expect(tab.page.locator("summary")).to_be_focused()

    tab.page.locator("summary").click()
    tab.show(token=make_token(exp=1))
    expect(tab.error()).to_contain_text("Paste a new one")
    tab.show(token=make_token(exp=2))
    expect(tab.error()).to_have_text("The token has expired.")
    assert relay.count("GET") == 4


def test_bad_token_is_told(stage: Stage) -> None:
    """And the box for the token is where the person looks next."""
    tab = Tab(stage, f"http://127.0.0.1:{stage.server.port}/example")
    tab.show(token="nonsense")

    expect(tab.error()).to_have_text("The token is not valid.")
    expect(tab.page.get_by_label("Token", exact=True)).to_be_focused()


def test_origin_that_is_not_allowed_is_asked_about(stage: Stage, relay: Relay) -> None:
    """At once, as nothing gets better by waiting; the browser itself says nothing of use."""
    home = stage.home.replace("127.0.0.1", "localhost")  # another origin for a browser
    tab = Tab(stage, f"{home}/example.html")
    tab.show(f"http://127.0.0.1:{relay.server_port}/")

    address = f"http://127.0.0.1:{relay.server_port}/"
    sentence = f"No answer. Is taskapi running at {address}? Is this page's address, {home}, in its FRONTEND_URL?"
    expect(tab.error()).to_have_text(sentence)
    assert (relay.requests, len(tab.requests)) == ([], 1)


def test_file_is_told_to_be_served(stage: Stage) -> None:
    """Its origin is null, which no setting can allow."""
    tab = Tab(stage, EXAMPLE.as_uri())
    expect(tab.page.get_by_label("Address of the service")).to_have_value("http://127.0.0.1:5000/")
    tab.show(f"http://127.0.0.1:{stage.server.port}")

    sentence = "A page opened as a file has no address for FRONTEND_URL: serve it on localhost:3000."
    expect(tab.error()).to_contain_text(sentence)


def test_done_mark_goes_onto_a_newer_version(tab: Tab) -> None:
    """Where another client changed something else, both changes stay."""
    task = tab.call("GET")[0]
    tab.call("PATCH", f"/{task['id']}", {"title": "Water the fern"})

    tab.page.get_by_label("c, done").check()

    expect(tab.page.get_by_label("Water the fern, done")).to_be_checked()
    tab.settle()
    now = tab.call("GET", f"/{task['id']}")
    assert (now["title"], now["is_completed"]) == ("Water the fern", True)
    assert tab.requests == [f"{method} /api/tasks/{task['id']}" for method in ("PATCH", "GET", "PATCH")]
    expect(tab.error()).to_be_empty()


def test_title_of_another_client_is_not_overwritten(tab: Tab) -> None:
    """The row has the other's title, the box has one's own, and the person decides."""
    task = tab.call("GET")[0]
    tab.call("PATCH", f"/{task['id']}", {"title": "theirs"})

    tab.page.get_by_role("button", name="c, edit").click()
    tab.page.get_by_role("textbox", name="Title").fill("ours")
    tab.page.get_by_role("textbox", name="Title").press("Enter")

    expect(tab.error()).to_have_text("This has changed since the version in If-Match.")
    expect(tab.page.get_by_role("textbox", name="Title")).to_have_value("ours")
    assert (tab.titles()[0], tab.call("GET", f"/{task['id']}")["title"]) == ("theirs", "theirs")
    tab.page.get_by_role("textbox", name="Title").press("Enter")
    expect(tab.error()).to_be_empty()
    expect(tab.page.get_by_role("button", name="ours, edit")).to_be_visible()
    tab.settle()
    assert tab.call("GET", f"/{task['id']}")["title"] == "ours"


@pytest.mark.parametrize("action", ["c, done", "Delete c"])
def test_task_that_is_gone_leaves_the_list(tab: Tab, action: str) -> None:
    """Another client deleted it; the sentence is the service's."""
    tab.call("DELETE", f"/{tab.call('GET')[0]['id']}")

    tab.page.get_by_label(action, exact=True).click()

    expect(tab.page.get_by_role("status")).to_have_text("2 tasks")
    expect(tab.error()).to_have_text("There is nothing here.")
    assert tab.titles() == ["b", "a"]


def test_page_can_have_a_policy_of_hashes() -> None:
    """One script, one style, no attribute that a Content-Security-Policy of hashes would refuse, no other host."""
    text = EXAMPLE.read_text()

    assert [len(re.findall(f"<{tag}", text)) for tag in ("script>", "style>", "script ", "link ")] == [1, 1, 0, 1]
    assert re.findall(r"<[^>]*\s(?:style|on\w+)=", text.partition("<script>")[0]) == []
    assert set(re.findall(r"https?://([\w.]+)", text)) == {"127.0.0.1"}


def test_page_is_served_in_debug_mode_as_it_is(stage: Stage) -> None:
    """Byte for byte, with a policy that lets it talk to its own origin alone."""
    with closing(HTTPConnection("127.0.0.1", stage.server.port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/example")
        answer = connection.getresponse()
        body = answer.read()

    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))
    assert (answer.status, body) == (200, EXAMPLE.read_bytes())
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
    assert "unsafe" not in json.dumps(policy)
