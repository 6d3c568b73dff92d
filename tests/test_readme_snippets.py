"""The JavaScript in README.md: it runs as it stands there, in a page of another origin, and does what is said of it."""

import re
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Page

from tests.people import make_token
from tests.servers import PATIENCE, PROJECT, closed_port
from tests.stage import Stage, listening, open_stage, service

SECTION = re.search("^## For the front end$(.*?)^## ", (PROJECT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
SNIPPETS = re.findall("^```js\n(.*?)^```$", SECTION[1] if SECTION else "", re.DOTALL | re.MULTILINE)
API = "http://localhost:5000"  # as README.md has it
ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
GONE = {"status": 404, "code": "NOT_FOUND", "message": "There is nothing here.", "details": None, "retryAfter": 0}


class Fault(NamedTuple):
    """What befalls a create: which service gets it, and how much of the answer comes back."""

    port: int
    share: float


class Relay(ThreadingHTTPServer):
    """Stands between the page and the service; each create meets the next of its faults, while there are any."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.whole = Fault(port, 1)
        self.faults: list[Fault] = []
        self.creates = 0


class _Relay(BaseHTTPRequestHandler):
    server: Relay

    def do_POST(self) -> None:
        fault = self.server.whole
        if self.command == "POST":
            self.server.creates += 1
            fault = self.server.faults.pop(0) if self.server.faults else fault
        with closing(HTTPConnection("127.0.0.1", fault.port, timeout=PATIENCE)) as connection:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
        if fault.share == 0:
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name != "Connection":  # which ends here after each answer: Chromium repeats by itself on a kept one
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: int(len(data) * fault.share)])

    do_GET = do_PATCH = do_DELETE = do_OPTIONS = do_POST

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Tab:
    """A page with the snippets in it, and a user's token."""

    def __init__(self, stage: Stage, relay: Relay) -> None:
        self.server, self.relay, self.token = stage.server, relay, make_token()
        self.page: Page = stage.page(stage.home)
        script = "\n".join(SNIPPETS).replace(API, f"http://127.0.0.1:{relay.server_port}")
        self.page.add_script_tag(content=f"const getToken = async () => '{self.token}';\n{script}")

    def run(self, script: str, argument: object = None) -> Any:
        """Run an async function of the page, and return what it returns, or what an ApiError says."""
        return self.page.evaluate(
            f"""(argument) => ({script})(argument).catch((error) => {{
                if (error instanceof ApiError) return {{ message: error.message, ...error }};
                throw error;
            }})""",
            argument,
        )

    def stored(self) -> Any:
        """Return this user's tasks, as the service has them."""
        return self.server.fetch("GET", "/api/tasks", Authorization=f"Bearer {self.token}")[1]


@pytest.fixture(scope="module")
def stage(sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for the module, as it takes seconds to set up; each test has its own user."""
    with open_stage(tmp_path_factory.mktemp("stage"), sqlite_file) as stage:
        yield stage


@pytest.fixture
def tab(stage: Stage) -> Iterator[Tab]:
    """A page of the front end, closed in the end."""
    relay = Relay(stage.server.port)
    with listening(relay):
        tab = Tab(stage, relay)
        yield tab
        tab.page.context.close()


def test_section_is_short() -> None:
    """What one copies, one reads first."""
    lines = [line for line in "".join(SNIPPETS).splitlines() if line]

    assert 0 < len(lines) <= 64


def test_errors_can_be_told_apart(tab: Tab) -> None:
    """Code, details and status are there, whatever was asked; a mistake is not repeated."""
    missing = tab.run("() => call('GET', '/api/tasks/x')")
    untitled = tab.run("() => createTask({})")

    assert missing == GONE
    assert untitled == {
        "status": 400,
        "code": "VALIDATION_ERROR",
        "details": {"title": ["Missing data for required field."]},
        "message": "Some fields break a rule.",
        "retryAfter": 0,
    }
    assert tab.relay.creates == 1


def test_list_goes_through_all_pages(tab: Tab) -> None:
    """The filters stay from page to page."""
    for title in "abcde":
        tab.run("(title) => createTask({ title, is_completed: title === 'c' })", title)

    titles = """async (queries) => {
        const titles = [];
        for await (const task of listTasks(...queries)) titles.push(task.title);
        return titles;
    }"""
    assert tab.run(titles, [{"is_completed": False, "sort": "title", "limit": 1}]) == ["a", "b", "d", "e"]
    assert tab.run(titles, []) == ["e", "d", "c", "b", "a"]
    assert tab.run(titles, [{"q": "", "is_completed": None}]) == ["e", "d", "c", "b", "a"]


ADD = """async (title) => {
    const tasks = new Map();
    const added = addTask(tasks, title).catch((error) => error.code);
    const atOnce = [...tasks.values()];
    return { atOnce, failure: await added, later: [...tasks] };
}"""


def test_added_task_shows_at_once(tab: Tab) -> None:
    """Before the answer the page has what it knows, afterwards what is stored."""
    seen = tab.run(ADD, "Water the plants")

    (task,) = tab.stored()
    known = {name: task[name] for name in seen["atOnce"][0]}
    assert task["title"] == "Water the plants"
    assert seen == {"atOnce": [known], "failure": None, "later": [[task["id"], task]]}


def test_refused_task_disappears(tab: Tab) -> None:
    """What the service does not take, the page does not keep."""
    seen = tab.run(ADD, "")

    assert [task["title"] for task in seen["atOnce"]] == [""]
    assert (seen["failure"], seen["later"], tab.stored()) == ("VALIDATION_ERROR", [], [])


@pytest.mark.parametrize("share", [0, 0.5], ids=["lost", "cut"])
def test_create_whose_answer_is_lost_happens_once(tab: Tab, share: float) -> None:
    """The service has the task, the page does not know: it asks again, and gets that very task."""
    tab.relay.faults.append(Fault(tab.relay.whole.port, share))

    seen = tab.run(ADD, "Water the plants")

    assert [[task["id"], task] for task in tab.stored()] == seen["later"]
    assert (len(seen["later"]), seen["failure"], tab.relay.creates) == (1, None, 2)


def test_create_makes_its_own_id_once(tab: Tab) -> None:
    """Whoever gives none is safe, too."""
    tab.relay.faults.append(Fault(tab.relay.whole.port, 0))

    task = tab.run("() => createTask({ title: 'Water the plants' })")

    assert (tab.stored(), tab.relay.creates) == ([task], 2)


def test_create_waits_for_the_database(stage: Stage, tab: Tab, tmp_path: Path) -> None:
    """After a 503 the page waits as long as Retry-After says, even if the rest is cut, and tries again."""
    with closed_port() as nobody, service(tmp_path, f"postgresql://127.0.0.1:{nobody}/x", stage.home) as away:
        tab.relay.faults += [Fault(away.port, 1), Fault(away.port, 0.5)]
        script = """() => {
            const wait = setTimeout;
            globalThis.waits = [];
            globalThis.setTimeout = (done, time) => waits.push(time) && wait(done, time);
        }"""
        tab.page.evaluate(script)
        seen = tab.run(ADD, "Water the plants")

    assert [[task["id"], task] for task in tab.stored()] == seen["later"]
    assert (len(seen["later"]), seen["failure"], tab.relay.creates) == (1, None, 3)
    assert tab.page.evaluate("waits") == [1000, 1000]


def test_create_is_given_up_in_the_end(tab: Tab) -> None:
    """Five times, with a second more between each and the next; the page is told that it does not know."""
    tab.relay.faults += [Fault(tab.relay.whole.port, 0)] * 5

    script = """async (id) => {
        const waits = [];
        globalThis.setTimeout = (done, wait) => waits.push(wait) && done();
        const failure = await createTask({ id, title: 'Water the plants' }).catch(String);
        return { failure, waits };
    }"""
    seen = tab.run(script, ID)

    assert seen == {"failure": "TypeError: Failed to fetch", "waits": [1000, 2000, 3000, 4000]}
    assert (tab.relay.creates, [task["id"] for task in tab.stored()]) == (5, [ID])


def test_edit_decides_again_where_somebody_was_faster(tab: Tab) -> None:
    """Neither change is lost: the second decision is made about the task as the first writer left it."""
    task = tab.run("() => createTask({ title: 'Water the plants' })")

    script = """async (id) => {
        const seen = [];
        const task = await editTask(id, async ({ title }) => {
            seen.push(title);
            if (seen.length === 1) await call('PATCH', `/api/tasks/${id}`, { body: { title: 'Water the fern' } });
            return { title: `${title} today` };
        });
        return { seen, task };
    }"""
    edited = tab.run(script, task["id"])

    stored = tab.stored()
    assert [task["title"] for task in stored] == ["Water the fern today"]
    assert edited == {"seen": ["Water the plants", "Water the fern"], "task": stored[0]}


def test_edit_can_be_left_alone(tab: Tab) -> None:
    """Whoever decides to change nothing gets the task as it is; a task that is gone is an error."""
    task = tab.run("() => createTask({ title: 'Water the plants' })")

    assert tab.run("(id) => editTask(id, () => null)", task["id"]) == task
    assert tab.run("() => editTask('x', () => ({ title: 'y' }))") == GONE
    assert tab.stored() == [task]


def test_delete_can_be_undone(tab: Tab) -> None:
    """The task is gone, and then back, but for its times."""
    task = tab.run("() => createTask({ title: 'Water the plants', description: 'The fern', is_completed: true })")

    tab.run("async (id) => { globalThis.undo = await deleteTask(id); }", task["id"])
    between = tab.stored()
    undone = tab.run("() => undo()")

    times = {name: undone[name] for name in ("created_at", "updated_at")}
    assert (between, tab.stored(), undone) == ([], [undone], task | times)
