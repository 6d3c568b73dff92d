"""docs/client.ts: compiled strictly, run in a real browser, against the service and what may stand before it."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.nginx import foreign_nginx
from tests.npm import install, node
from tests.people import SECRET, make_token
from tests.relay import Fault, Relay
from tests.servers import PROJECT, closed_port
from tests.stage import Stage, listening, open_stage, service

pytestmark = pytest.mark.slow

SOURCES = PROJECT / "tests" / "client"
CLIENT, EXAMPLE = PROJECT / "docs" / "client.ts", PROJECT / "docs" / "example.html"
GUIDE = (PROJECT / "docs" / "frontend.md").read_text()
USE, ROUTE = "import { connect }", "import { SignJWT }"  # how the snippets that are of the guide alone begin
ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
GONE = {
    "name": "ApiError",
    "status": 404,
    "code": "NOT_FOUND",
    "message": "There is nothing here.",
    "details": {},
    "retryAfter": 0,
    "reaction": "load again",
}
# What makes the compiler believe instead of check: any, casts, and ! behind an expression.
ESCAPES = re.compile(r"(?<!\.)\bany\b|\bas (?!const\b)\w+|[\w)\]]!(?!=)")

# Makes a client and, from then on, has no wait take its time.
PRELUDE = """
globalThis.open = (address, getToken) => {
  globalThis.tasks = connect(address, getToken);
};
globalThis.told = (error) => {
  if (error instanceof ApiError) return { message: error.message, ...error, reaction: reactTo(error) };
  if (error instanceof NoAnswer) return { message: error.message, name: error.name };
  return { name: error.name };
};
globalThis.skipWaits = () => {
  const wait = setTimeout;
  globalThis.waits = [];
  globalThis.setTimeout = (done, time) => waits.push(time) && wait(done, 0);
};
globalThis.isReady = true;
"""


class Tab:
    """A page with the client in it, and a user's token."""

    def __init__(self, page: Page, script: str, address: str) -> None:
        self.page, self.token = page, make_token()
        page.add_script_tag(content=script.replace("export ", "") + PRELUDE, type="module")
        page.wait_for_function("globalThis.isReady")
        self.open(address)

    def open(self, address: str, *tokens: str) -> None:
        """Make the client anew: getToken gives the first token, and the next one when it is told of an expired one."""
        script = """([address, tokens]) => {
            globalThis.asked = [];
            open(address, (isExpired) => {
                asked.push(isExpired);
                if (isExpired && tokens.length > 1) tokens.shift();
                return tokens[0];
            });
        }"""
        self.page.evaluate(script, [address, tokens or [self.token]])

    def run(self, script: str, argument: object = None) -> Any:
        """Run an async function of the page, and return what it returns, or what its error tells."""
        return self.page.evaluate(f"(argument) => ({script})(argument).catch(told)", argument)

    def waits(self) -> Any:
        """Return the waits so far, in milliseconds."""
        return self.page.evaluate("waits")


def stored(stage: Stage, token: str) -> Any:
    """Return a user's tasks, as the service has them."""
    return stage.server.fetch("GET", "/api/tasks", Authorization=f"Bearer {token}")[1]


@pytest.fixture(scope="module")
def stage(sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for the module, as it takes seconds to set up; each test has its own user."""
    with open_stage(tmp_path_factory.mktemp("stage"), sqlite_file) as stage:
        yield stage


@pytest.fixture(scope="module")
def project(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A front end's folder with what npm gives, but no programs."""
    home = tmp_path_factory.mktemp("front-end")
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(SOURCES / name, home)
    (home / "node_modules").symlink_to(install(SOURCES, folder / "client-packages"))
    return home


@pytest.fixture(scope="module")
def compiled(project: Path, stage: Stage) -> str:
    """The client's JavaScript, made with types of the running service, in the one command that it names."""
    command = re.search(r"^ \* +npx (.*) http://127\.0\.0\.1:5000(/\S+) (.*)$", CLIENT.read_text(), re.MULTILINE)
    assert command
    document = f"http://127.0.0.1:{stage.server.port}{command[2]}"
    made = node("npx", "--no", *command[1].split(), document, *command[3].split(), cwd=project)
    assert made.returncode == 0, made.stderr
    assert compile_programs(project, {"client": CLIENT.read_text()}) == ""
    return (project / "client.js").read_text()


def compile_programs(project: Path, programs: dict[str, str]) -> str:
    """Compile the programs, and only them, beside the types; return what the compiler has against them."""
    for old in set(project.glob("*.ts")) - set(project.glob("*.d.ts")):
        old.unlink()
    for name, source in programs.items():
        (project / f"{name}.ts").write_text(source)
    return node("npx", "--no", "tsc", cwd=project).stdout


@pytest.fixture
def relay(stage: Stage) -> Iterator[Relay]:
    """Before the service, without a fault as yet."""
    relay = Relay(stage.server.port)
    with listening(relay):
        yield relay


@pytest.fixture
def tab(stage: Stage, relay: Relay, compiled: str) -> Iterator[Tab]:
    """A page that has had one answer, so that a later failure is not taken for a CORS error."""
    tab = Tab(stage.page(stage.home), compiled, f"http://127.0.0.1:{relay.server_port}")
    tab.run("() => tasks.all()")
    relay.requests.clear()
    yield tab
    tab.page.context.close()


def test_errors_tell_what_to_do(tab: Tab, relay: Relay) -> None:
    """Status, code, details and the service's sentence are there; a mistake is not repeated."""
    missing = tab.run("() => tasks.get('x')")
    untitled = tab.run("() => tasks.create({ title: ' ' })")
    tab.open(f"http://127.0.0.1:{relay.server_port}", "nonsense")
    unknown = tab.run("() => tasks.all()")

    assert missing == GONE
    assert (untitled["status"], untitled["code"], list(untitled["details"])) == (400, "VALIDATION_ERROR", ["title"])
    assert (untitled["message"], untitled["reaction"]) == (f"title: {untitled['details']['title'][0]}", "mark fields")
    assert (unknown["status"], unknown["code"], unknown["reaction"]) == (401, "INVALID_TOKEN", "sign in")
    assert relay.requests == ["GET /api/tasks/x", "POST /api/tasks", "GET /api/tasks?"]


LIST = """async (query) => {
    const pages = [];
    for await (const page of tasks.pages(query)) pages.push(page.map((task) => task.title));
    return pages;
}"""


def test_list_goes_through_all_pages(tab: Tab) -> None:
    """The filters stay from page to page; one that is left empty does not count."""
    for title in "abcde":
        tab.run("(title) => tasks.create({ title, is_completed: title === 'c' })", title)

    filtered = tab.run(LIST, {"is_completed": False, "sort": "title", "limit": 1})
    found = tab.run("() => tasks.all({ q: '', is_completed: undefined, limit: 2 })")

    assert filtered == [["a"], ["b"], ["d"], ["e"]]
    assert [task["title"] for task in found] == ["e", "d", "c", "b", "a"]


def test_page_is_asked_for_when_it_is_needed(tab: Tab, relay: Relay) -> None:
    """So "More" is the next step of the same list."""
    for title in "abc":
        tab.run("(title) => tasks.create({ title })", title)
    relay.requests.clear()

    tab.run("async () => { globalThis.list = tasks.pages({ limit: 2 }); globalThis.first = await list.next(); }")
    asked = len(relay.requests)
    rest = tab.run("async () => [await list.next(), await list.next()].map(({ done, value }) => [done, value?.length])")

    assert (asked, len(relay.requests), rest) == (1, 2, [[False, 1], [True, None]])


@pytest.mark.parametrize("share", [0, 0.5], ids=["lost", "cut"])
def test_create_whose_answer_is_lost_happens_once(stage: Stage, tab: Tab, relay: Relay, share: float) -> None:
    """The page sends the create again, and gets the same task."""
    relay.faults["POST"] = [Fault(share)]

    task = tab.run("() => tasks.create({ title: 'Water the plants' })")

    assert (stored(stage, tab.token), relay.count("POST")) == ([task], 2)


def test_create_waits_for_the_database(stage: Stage, tab: Tab, relay: Relay, tmp_path: Path) -> None:
    """After a 503 the page waits as long as Retry-After says, and tries again."""
    with closed_port() as port, service(tmp_path, f"postgresql://127.0.0.1:{port}/x", stage.home) as away:
        relay.faults["POST"] = [Fault(port=away.port), Fault(port=away.port)]
        tab.page.evaluate("skipWaits()")
        task = tab.run("() => tasks.create({ title: 'Water the plants' })")

    assert (stored(stage, tab.token), relay.count("POST"), tab.waits()) == ([task], 3, [1000, 1000])


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_create_waits_for_a_proxy(stage: Stage, tab: Tab, relay: Relay, status: int) -> None:
    """A proxy's own answer need not be JSON; without Retry-After the waits grow."""
    relay.faults["POST"] = [Fault(status=status, retry_after="7"), Fault(status=status), Fault(status=status)]
    tab.page.evaluate("skipWaits()")

    task = tab.run("() => tasks.create({ title: 'Water the plants' })")

    assert (stored(stage, tab.token), relay.count("POST"), tab.waits()) == ([task], 4, [7000, 2000, 3000])


def test_create_is_given_up_in_the_end(tab: Tab, relay: Relay) -> None:
    """Four times; the page is told the last reason, and that a person may wait."""
    relay.faults["POST"] = [Fault(status=502)] * 4
    tab.page.evaluate("skipWaits()")

    failure = tab.run("() => tasks.create({ title: 'Water the plants' })")

    address = f"http://127.0.0.1:{relay.server_port}/api/tasks"
    assert (failure["status"], failure["message"]) == (502, f"{address} answered 502 without JSON.")
    assert (failure["code"], failure["reaction"]) == ("INTERNAL_ERROR", "wait")
    assert (relay.count("POST"), tab.waits()) == (4, [1000, 2000, 3000])


def test_long_wait_is_left_to_the_person(tab: Tab, relay: Relay) -> None:
    """The client does not wait for longer than half a minute."""
    relay.faults["POST"] = [Fault(status=429, retry_after="31")]

    failure = tab.run("() => tasks.create({ title: 'Water the plants' })")

    assert (failure["status"], failure["retryAfter"], relay.count("POST")) == (429, 31, 1)


@pytest.mark.parametrize(
    ("method", "script"),
    [
        ("PATCH", "async () => tasks.edit(task, () => ({ title: 'Water the fern' }))"),
        ("DELETE", "async () => tasks.remove(task.id)"),
    ],
)
def test_change_whose_answer_is_lost_is_not_repeated(tab: Tab, relay: Relay, method: str, script: str) -> None:
    """The page decides, as it may be done already."""
    tab.run("async () => { globalThis.task = await tasks.create({ title: 'Water the plants' }); }")
    relay.faults[method] = [Fault(0)]

    failure = tab.run(script)

    address = f"http://127.0.0.1:{relay.server_port}/api/tasks"
    assert failure == {"name": "NoAnswer", "message": f"No answer. Is taskapi running at {address}?"}
    assert relay.count(method) == 1


def test_origin_that_is_not_allowed_is_told_at_once(stage: Stage, relay: Relay, compiled: str) -> None:
    """A browser hides a CORS refusal: the client asks about FRONTEND_URL, and repeats nothing."""
    home = stage.home.replace("127.0.0.1", "localhost")  # another origin for a browser
    tab = Tab(stage.page(home), compiled, f"http://127.0.0.1:{relay.server_port}/")
    tab.page.evaluate("skipWaits()")

    failures = [tab.run("() => tasks.all()"), tab.run("() => tasks.create({ title: 'Water the plants' })")]

    address = f"http://127.0.0.1:{relay.server_port}/api/tasks"
    sentence = f"No answer. Is taskapi running at {address}? Is this page's address, {home}, in its FRONTEND_URL?"
    assert failures == [{"name": "NoAnswer", "message": sentence}] * 2
    assert (relay.requests, tab.waits()) == ([], [])
    tab.page.context.close()


def test_wrong_address_is_told(stage: Stage, tab: Tab) -> None:
    """A front end's own server answers with its page, also where the client takes it for the service."""
    tab.open(stage.home)

    failure = tab.run("() => tasks.all()")

    assert failure["message"] == f"{stage.home}/api/tasks answered 200 without JSON."


def test_expired_token_is_renewed_once(tab: Tab, relay: Relay) -> None:
    """The request is repeated with the new token; where that has expired too, the page signs in."""
    address, old = f"http://127.0.0.1:{relay.server_port}", make_token(exp=1)

    tab.open(address, old, tab.token)
    task = tab.run("() => tasks.create({ title: 'Water the plants' })")
    renewed, sent = tab.page.evaluate("asked"), relay.count("POST")
    tab.open(address, old)
    failure = tab.run("() => tasks.all()")

    assert (task["title"], renewed, sent) == ("Water the plants", [False, True], 2)
    assert (failure["code"], failure["reaction"]) == ("TOKEN_EXPIRED", "sign in")
    assert (tab.page.evaluate("asked"), relay.count("GET")) == ([False, True], 2)


def test_signal_ends_a_list(tab: Tab, relay: Relay) -> None:
    """A list that a newer search replaces is not waited for or repeated."""
    relay.held["q=a"] = Event()
    tab.page.evaluate(
        """() => {
            globalThis.search = new AbortController();
            globalThis.found = tasks.all({ q: 'a' }, search.signal).catch(told);
        }"""
    )
    while not relay.count("GET"):
        tab.page.wait_for_timeout(10)  # milliseconds

    failure = tab.run("() => { search.abort(); return found; }")

    relay.held["q=a"].set()
    assert (failure, relay.count("GET")) == ({"name": "AbortError"}, 1)


def test_edit_is_one_request(stage: Stage, tab: Tab, relay: Relay) -> None:
    """A task that the page has needs no look at the service first."""
    edited = tab.run(
        """async () => {
            const task = await tasks.create({ title: 'Water the plants' });
            return tasks.edit(task, () => ({ is_completed: true }));
        }"""
    )

    assert stored(stage, tab.token) == [edited]
    assert edited["is_completed"] is True
    assert relay.requests == ["POST /api/tasks", f"PATCH /api/tasks/{edited['id']}"]


# Another client changes the title before each of the first so many decisions is sent.
OVERTAKEN = """async (times) => {
    const task = await tasks.create({ title: 'Plants' });
    const seen = [];
    const result = await tasks.edit(task, ({ title }) => {
        seen.push(title);
        if (seen.length <= times) {
            const other = new XMLHttpRequest();
            other.open('PATCH', `${address}/api/tasks/${task.id}`, false);
            other.setRequestHeader('Authorization', `Bearer ${token}`);
            other.setRequestHeader('Content-Type', 'application/json');
            other.send(JSON.stringify({ title: `${title} ${seen.length}` }));
        }
        return { title: `${title}, ours` };
    }).catch(told);
    return { seen, result };
}"""


def overtake(tab: Tab, address: str, times: int) -> Any:
    """Have another client be faster so many times."""
    tab.page.evaluate("([address, token]) => Object.assign(globalThis, { address, token })", [address, tab.token])
    return tab.run(OVERTAKEN, times)


def test_edit_decides_again_where_another_client_was_faster(stage: Stage, tab: Tab) -> None:
    """Neither change is lost: the second decision is made about the task as the first writer left it."""
    seen = overtake(tab, f"http://127.0.0.1:{stage.server.port}", 1)

    assert seen == {"seen": ["Plants", "Plants 1"], "result": stored(stage, tab.token)[0]}
    assert seen["result"]["title"] == "Plants 1, ours"


def test_edit_is_given_up_in_the_end(stage: Stage, tab: Tab, relay: Relay) -> None:
    """Three decisions, then the person is told; the others' changes stay."""
    seen = overtake(tab, f"http://127.0.0.1:{stage.server.port}", 9)

    assert seen["seen"] == ["Plants", "Plants 1", "Plants 1 2"]
    assert (seen["result"]["status"], seen["result"]["reaction"]) == (412, "load again")
    assert [task["title"] for task in stored(stage, tab.token)] == ["Plants 1 2 3"]
    assert (relay.count("PATCH"), relay.count("GET")) == (3, 2)


def test_edit_can_be_left_alone(tab: Tab, relay: Relay) -> None:
    """Null changes nothing and asks nothing; a task that is gone is an error."""
    task = tab.run("() => tasks.create({ title: 'Water the plants' })")

    assert tab.run("(task) => tasks.edit(task, () => null)", task) == task
    assert relay.requests == ["POST /api/tasks"]
    assert tab.run("(task) => tasks.edit(task, () => ({ title: 'y' }))", task | {"id": ID}) == GONE


def test_delete_can_be_undone(stage: Stage, tab: Tab) -> None:
    """The task is gone, and then back, but for its times."""
    task = tab.run("() => tasks.create({ title: 'Water the plants', description: 'The fern', is_completed: true })")

    deleted = tab.run("(id) => tasks.remove(id)", task["id"])
    between = stored(stage, tab.token)
    undone = tab.run("(deleted) => tasks.create(deleted)", deleted)

    times = {name: undone[name] for name in ("created_at", "updated_at")}
    assert (deleted, between, stored(stage, tab.token), undone) == (task, [], [undone], task | times)


@pytest.mark.parametrize("path", ["backend", "tagless"])
def test_proxy_may_compress_add_links_and_have_a_path(stage: Stage, tab: Tab, tmp_path: Path, path: str) -> None:
    """Weak tags, no tags, a foreign Link, a path that the service does not know: all pages come, and edits end."""
    with foreign_nginx(tmp_path, stage.server.port) as port:
        address = f"http://127.0.0.1:{port}/{path}/"
        tab.open(address)
        for title in "abc":
            tab.run("(title) => tasks.create({ title })", title)
        pages = tab.run(LIST, {"sort": "title", "limit": 1})
        first = overtake(tab, address.rstrip("/"), 1)
        second = overtake(tab, address.rstrip("/"), 9)

    assert pages == [["a"], ["b"], ["c"]]
    assert (first["result"]["title"], second["result"]["status"]) == ("Plants 1, ours", 412)


def test_service_may_be_mounted_below_a_path(stage: Stage, tab: Tab, sqlite_url: str, tmp_path: Path) -> None:
    """Links that carry the path lead to the same pages."""
    with service(tmp_path, sqlite_url, stage.home, SCRIPT_NAME="/mount") as mounted:
        tab.open(f"http://127.0.0.1:{mounted.port}/mount")
        for title in "abc":
            tab.run("(title) => tasks.create({ title })", title)

        assert tab.run(LIST, {"sort": "title", "limit": 2}) == [["a", "b"], ["c"]]


LINKS = {
    '</api/tasks?a=1&cursor=x>; rel="next"': "a=1&cursor=x",
    "</api/tasks?cursor=x>; rel=next": "cursor=x",
    '<https://cdn.example.com/?v=1>; rel=preconnect, </api/tasks?cursor=x>; rel="next"': "cursor=x",
    '</api/tasks?cursor=x>; rel="next", <https://cdn.example.com/?v=1>; rel="preload"; as=style': "cursor=x",
    '<https://api.example.com/api/tasks?cursor=x>; title="more"; rel="next"': "cursor=x",
    "<https://cdn.example.com/?v=1>; rel=preconnect": None,
    '</?v=1>; rel="next-archive"': None,
    '</?v=1>; rel="prev"; title="the next"': None,
    "": None,
}


def test_link_is_read_by_its_relation(compiled: str, project: Path) -> None:
    """A proxy may add other links to the header."""
    read = f"{json.dumps(list(LINKS))}.map((link) => nextQuery(link) ?? null)"
    (project / "link.mjs").write_text(f"{compiled}\nconsole.log(JSON.stringify({read}));")

    program = node("node", "link.mjs", cwd=project)

    assert (json.loads(program.stdout), program.stderr) == (list(LINKS.values()), "")


def test_snippets_have_one_source() -> None:
    """What docs/frontend.md shows is in the client or the page as it stands there, or is run by the next tests."""
    sources = CLIENT.read_text().replace("export function", "function") + EXAMPLE.read_text()
    snippets = re.findall(r"^```(?:ts|js)\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)

    assert [snippet for snippet in snippets if snippet not in sources] == [snippet_of(USE), snippet_of(ROUTE)]
    assert len(snippets) > 2


def snippet_of(beginning: str) -> str:
    """Return the snippet of docs/frontend.md that begins like this."""
    [snippet] = re.findall(rf"^```\w+\n({re.escape(beginning)}.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    text: str = snippet
    return text


# Runs both snippets in one process: what the page would get from /api/token comes from the route.
BOTH = """
import { GET } from "./route.js";
const ask = fetch;
globalThis.fetch = (url, options) => url === "/api/token" ? GET() : ask(url, options);
await import("./use.js");
"""


def test_guide_makes_tokens_and_uses_them(project: Path, compiled: str, stage: Stage) -> None:
    """A route that signs a token and a front end that asks it, compiled strictly and run as they stand there."""
    programs = {
        "client": CLIENT.read_text(),
        "use": snippet_of(USE),
        "route": snippet_of(ROUTE).replace("@/sign-in", "./sign-in"),
        "sign-in": f'export const currentUser = async () => ({{ id: "{ID}", email: "ana@example.com" }});\n',
    }

    complaints = compile_programs(project, programs)
    for name in programs:
        program = (project / f"{name}.js").read_text().replace("127.0.0.1:5000", f"127.0.0.1:{stage.server.port}")
        (project / f"{name}.js").write_text(re.sub(r'(from "\./[\w-]+)"', r'\1.js"', program))
    (project / "both.js").write_text(BOTH)
    ran = node("node", "both.js", cwd=project, JWT_SECRET=SECRET)

    assert (complaints, ran.stderr, ran.stdout) == ("", "", "[ 'Water the plants' ]\n")
    [task] = stored(stage, make_token(sub=ID))
    assert (task["title"], task["is_completed"]) == ("Water the plants", True)


def test_guide_makes_tokens_in_python(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    """The token is good."""
    monkeypatch.setenv("JWT_SECRET", SECRET)
    scope: dict[str, Any] = {}
    exec(snippet_of("import os, time, jwt"), scope)

    assert stored(stage, scope["token_for"]("ana", "ana@example.com")) == []


def test_types_find_mistakes(project: Path, compiled: str) -> None:
    """Each line of wrong.ts that names an error of the compiler gets that one, and no other line gets any."""
    wrong = (SOURCES / "wrong.ts").read_text()
    lines = enumerate(wrong.splitlines(), 1)
    mistakes = {number: line.partition(" // ")[2] for number, line in lines if " // TS" in line}

    output = compile_programs(project, {"client": CLIENT.read_text(), "wrong": wrong})

    found = re.findall(r"^(\S+)\(([0-9]+),[0-9]+\): error (TS[0-9]+)", output, re.MULTILINE)
    assert len(mistakes) >= 20
    assert found == [("wrong.ts", str(number), code) for number, code in mistakes.items()]


def test_client_needs_no_way_around_its_types() -> None:
    """A front end can copy it without learning to silence the compiler."""
    source = CLIENT.read_text()
    code = re.sub(r"/\*[\s\S]*?\*/|//.*", "", source)

    assert "@ts-" not in source
    assert ESCAPES.findall(code) == []
