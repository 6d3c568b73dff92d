"""The service as a browser has it: a page of another origin, and the page to try the API, in a real Chromium.

Nothing here intercepts requests: Playwright would then answer the preflights itself.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Frame, Page

from tests.people import make_token
from tests.servers import PATIENCE, closed_port
from tests.stage import Stage, User, open_stage, service

pytestmark = pytest.mark.slow

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
TITLE = {"title": "Water the plants"}
HIDDEN = {"error": "TypeError: Failed to fetch"}

# Each text that can be seen and has less contrast to what is behind it than WCAG 2.2 asks for in 1.4.3.
PALE_TEXTS = """() => {
  const rgba = (color) => [...color.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));
  const luminance = (color) => color
    .map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const below = element.parentElement ? behind(element.parentElement) : [255, 255, 255];
    return over(rgba(getComputedStyle(element).backgroundColor), below);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const pale = [];
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.getClientRects().length) continue;
    const background = behind(element);
    const text = over(rgba(getComputedStyle(element).color), background);
    const [darker, lighter] = [luminance(text), luminance(background)].sort((a, b) => a - b);
    const contrast = (lighter + 0.05) / (darker + 0.05);
    if (contrast < 4.5) pale.push(`${texts.currentNode.data}: ${contrast}`);
  }
  return pale;
}"""


@pytest.fixture(scope="module")
def stage(sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for the module, as it takes seconds to set up; each test has its own users."""
    with open_stage(tmp_path_factory.mktemp("stage"), sqlite_file) as stage:
        yield stage


@pytest.fixture(autouse=True)
def pages_are_closed(stage: Stage) -> Iterator[None]:
    """A test leaves no page open."""
    yield
    for context in stage.browser.contexts:
        context.close()


@pytest.fixture
def ana(stage: Stage) -> User:
    """She uses the front end."""
    return User(stage.page(stage.home), stage.server.port)


def test_create_and_its_repetition_are_readable_whole(stage: Stage, ana: User) -> None:
    """After one preflight for both, the page gets the task and each header of the contract."""
    before = len(stage.requests())

    created = ana.call("POST", body=TITLE | {"id": ID}, X_Request_ID="first")
    repeated = ana.call("POST", body=TITLE | {"id": ID}, X_Request_ID="second")

    task = created["body"]
    visible = {
        "cache-control": "private, no-cache",
        "content-length": str(len(json.dumps(task, separators=(",", ":")))),
        "content-type": "application/json",
        "etag": f'"{task["updated_at"]}"',
    }
    assert (task["id"], task["title"]) == (ID, "Water the plants")
    assert created == {
        "type": "cors",
        "status": 201,
        "headers": visible | {"location": f"/api/tasks/{ID}", "x-request-id": "first"},
        "body": task,
    }
    assert repeated == {
        "type": "cors",
        "status": 200,
        "headers": visible | {"x-request-id": "second"},
        "body": task,
    }
    assert ["OPTIONS 200", "POST 201", "POST 200"] == stage.requests()[before:]


def test_change_delete_and_undo(ana: User) -> None:
    """An old version changes nothing; a deleted task comes back from the answer of the delete."""
    created = ana.call("POST", body=TITLE)
    path, etag = created["headers"]["location"], created["headers"]["etag"]

    changed = ana.call("PATCH", path, {"is_completed": True}, If_Match=etag)
    stale = ana.call("PUT", path, {"title": "Fell the trees"}, If_Match=etag)
    deleted = ana.call("DELETE", path, If_Match=changed["headers"]["etag"])
    gone = ana.call("GET", path)
    undone = ana.call("POST", body=deleted["body"])

    task = created["body"] | {"is_completed": True, "updated_at": changed["body"]["updated_at"]}
    times = {name: undone["body"][name] for name in ("created_at", "updated_at")}
    answers = [(answer["status"], answer["body"]) for answer in (changed, stale, deleted, gone, undone)]
    assert answers == [
        (200, task),
        (412, {"error": "This has changed since the version in If-Match.", "code": "INVALID_REQUEST"}),
        (200, task),
        (404, {"error": "There is nothing here.", "code": "NOT_FOUND"}),
        (201, task | times),
    ]


def test_pages_by_link(ana: User) -> None:
    """The page's script follows Link to the end."""
    for title in "abcde":
        ana.call("POST", body={"title": title})

    pages, path = [], "/api/tasks?sort=title&limit=2"
    while path:
        answer = ana.call("GET", path)
        pages.append([task["title"] for task in answer["body"]])
        path = answer["headers"].get("link", "").removeprefix("<").removesuffix('>; rel="next"')

    assert pages == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize(
    ("headers", "code", "sentence"),
    [
        ({}, "UNAUTHORIZED", "Send a bearer token."),
        ({"Authorization": "Bearer x"}, "INVALID_TOKEN", "The token is not valid."),
        ({"Authorization": f"Bearer {make_token(exp=1)}"}, "TOKEN_EXPIRED", "The token has expired."),
    ],
    ids=["no token", "bad token", "old token"],
)
def test_refusals_are_readable(ana: User, headers: dict[str, str], code: str, sentence: str) -> None:
    """A page can tell whether to log in or to renew its token."""
    answer = ana.fetch("/api/tasks", headers=headers)

    assert (answer["status"], answer["body"]) == (401, {"error": sentence, "code": code})


def test_absent_database_is_readable(stage: Stage, tmp_path: Path) -> None:
    """A page learns that it should try again, and when."""
    with closed_port() as port, service(tmp_path, f"postgresql://127.0.0.1:{port}/x", stage.home) as server:
        answer = User(stage.page(stage.home), server.port).call("POST", body=TITLE)

    error = {"error": "The database is not available. Try again.", "code": "DATABASE_ERROR"}
    assert (answer["status"], answer["headers"]["retry-after"], answer["body"]) == (503, "1", error)


def stranger(stage: Stage, kind: str) -> Page | Frame:
    """Return a page whose origin FRONTEND_URL does not name."""
    if kind == "another host":
        return stage.page(stage.home.replace("127.0.0.1", "localhost"))
    page = stage.page(stage.home)
    page.set_content(f'<iframe sandbox="allow-scripts" src="{stage.home}"></iframe>')
    frame = page.frames[1]
    frame.wait_for_load_state()
    return frame


@pytest.mark.parametrize(("kind", "origin"), [("another host", "http://localhost:"), ("sandboxed frame", "null")])
def test_stranger_gets_nothing(stage: Stage, kind: str, origin: str) -> None:
    """A request that needs a preflight is not sent, so nothing is written, even with a good token.

    A request that needs none is sent, as by any page to any server; it has no token, so it gets a 401, and the page
    can't read even that.
    """
    page = stranger(stage, kind)
    eve = User(page, stage.server.port)
    plain = {"Content-Type": "text/plain"}
    blind = plain | {"Authorization": eve.bearer}
    before = len(stage.requests())

    answers = [
        eve.call("POST", body=TITLE),
        eve.call("GET"),
        eve.fetch("/api/tasks"),
        eve.fetch("/api/tasks", method="POST", headers=plain, body=json.dumps(TITLE)),
        eve.fetch("/api/openapi.json"),
        eve.fetch("/api/tasks", method="POST", mode="no-cors", headers=blind, body=json.dumps(TITLE)),
    ]

    assert str(page.evaluate("origin")).startswith(origin)
    assert answers == [HIDDEN] * 5 + [{"type": "opaque", "status": 0, "headers": {}, "body": ""}]
    assert stage.requests()[before:] == [
        "OPTIONS 200",
        "OPTIONS 200",
        "GET 401",
        "POST 401",
        "GET 200",
        "POST 401",
    ]
    assert stage.server.fetch("GET", "/api/tasks", Authorization=eve.bearer) == (200, [])


class Docs:
    """The page to read and try the API, as a user has it on the screen."""

    def __init__(self, stage: Stage, width: int = 1280, height: int = 900, scheme: Any = "light") -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.origin = f"http://127.0.0.1:{stage.server.port}"
        context = stage.browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.on("request", lambda request: self.requests.append(request.url.removeprefix(self.origin)))
        self.page = page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", lambda message: self.complaints.append(message.text))  # CSP's violations among them
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(f"{self.origin}/api/docs")
        page.locator("#operations-tasks-createTask").wait_for()

    def authorize(self, token: str) -> None:
        """Enter a token."""
        self.page.locator(".scheme-container .authorize").click()
        self.page.locator(".auth-container input").fill(token)
        self.page.locator(".auth-btn-wrapper .authorize").click()
        self.page.locator(".auth-btn-wrapper .btn-done").click()

    def execute(self, operation: str) -> tuple[str, Any]:
        """Try an operation as it stands there, and return status and JSON."""
        block = self.page.locator(f"#operations-tasks-{operation}")
        block.locator(".opblock-summary-control").click()
        block.locator(".try-out__btn").click()
        block.locator(".execute").click()
        answer = block.locator(".live-responses-table tbody tr").first
        body = answer.locator(".highlight-code code").first.text_content()
        return answer.locator(".response-col_status").inner_text(), json.loads(body or "")

    def width(self) -> int:
        """Return how many pixels the page takes from left to right."""
        width: int = self.page.evaluate("document.documentElement.scrollWidth")
        return width


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 900, "light"), (390, 844, "dark")])
def test_docs_are_there_to_try_the_api(stage: Stage, width: int, height: int, scheme: str) -> None:
    """With a token a task is made and listed, all of it fits the screen and can be read, and the console stays empty.

    The page's own four files and the two trials are all that it requests, from any host.
    """
    docs = Docs(stage, width, height, scheme)
    sizes = [docs.width()]

    docs.authorize(make_token())
    created, task = docs.execute("createTask")
    listed = docs.execute("listTasks")

    assert (created, task["title"]) == ("201", "Water the plants")
    assert listed == ("200", [task])
    assert [*sizes, docs.width()] == [width, width]
    assert docs.page.evaluate(PALE_TEXTS) == []
    assert sorted(docs.requests) == [
        "/api/docs",
        "/api/docs/ui/swagger-ui-bundle.js",
        "/api/docs/ui/swagger-ui.css",
        "/api/openapi.json",
        "/api/tasks",
        "/api/tasks?sort=-created_at&limit=50",
    ]
    assert docs.complaints == []


def test_docs_show_a_refusal(stage: Stage) -> None:
    """A token that is not valid gets the service's 401, not a failure of the page."""
    docs = Docs(stage)

    docs.authorize("x")

    error = {"error": "The token is not valid.", "code": "INVALID_TOKEN"}
    assert docs.execute("listTasks") == ("401", error)
    assert docs.complaints == ["Failed to load resource: the server responded with a status of 401 (UNAUTHORIZED)"]


def test_docs_follow_the_colour_scheme(stage: Stage) -> None:
    """The page is dark for users who prefer dark."""
    docs = Docs(stage)
    look = "[document.documentElement.className, getComputedStyle(document.documentElement).backgroundColor]"

    light = docs.page.evaluate(look)
    docs.page.emulate_media(color_scheme="dark")
    docs.page.locator("html.dark-mode").wait_for(state="attached")  # the page hears of it soon, and not at once
    dark = docs.page.evaluate(look)

    assert (light, dark) == (["", "rgba(0, 0, 0, 0)"], ["dark-mode", "rgb(28, 32, 34)"])
