"""A stage for tests with a browser: a real Chromium, a page of another origin, and the service that lets it in."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from playwright.sync_api import Browser, Frame, Page, sync_playwright

from tests.people import SECRET, make_token
from tests.servers import PATIENCE, PROJECT, Server, copy_project, require, serving

EXAMPLE = (PROJECT / "docs" / "example.html").read_bytes()
# What fetch gives to a page's script, or how it fails.
FRONT_END = """<!DOCTYPE html>
<title>Front end</title>
<link rel="icon" href="data:,">
<script>
async function call(url, options) {
  try {
    const response = await fetch(url, options);
    const text = await response.text();
    return {
      type: response.type,
      status: response.status,
      headers: Object.fromEntries(response.headers),
      body: text && JSON.parse(text),
    };
  } catch (error) {
    return { error: String(error) };
  }
}
</script>
"""


class _FrontEnd(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(EXAMPLE if self.path == "/example.html" else FRONT_END.encode())

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def listening(server: ThreadingHTTPServer) -> Iterator[int]:
    """Yield the port of a server that runs in a thread."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def front_end() -> Iterator[str]:
    """Yield the origin of a page that has nothing but FRONT_END's script, and of /example.html."""
    with listening(ThreadingHTTPServer(("127.0.0.1", 0), _FrontEnd)) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window that can reach this machine and no other.

    Playwright itself tells it to update, synchronise and report nothing, and to do without its sandbox.
    """
    path = require("chromium")
    unreachable = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright, closing(
        playwright.chromium.launch(executable_path=path, args=[unreachable])
    ) as browser:
        yield browser


@contextmanager
def service(folder: Path, database_url: str, frontend_url: str, **settings: str) -> Iterator[Server]:
    """The service under gunicorn, for pages of one origin."""
    copy_project(folder)
    settings |= {"JWT_SECRET": SECRET, "DATABASE_URL": database_url, "FRONTEND_URL": frontend_url, "HOME": str(folder)}
    with serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=folder, **settings) as server:
        yield server


class Stage(NamedTuple):
    """A browser, the front end's origin, and the service that lets it in."""

    browser: Browser
    home: str
    server: Server

    def page(self, url: str) -> Page:
        """Open a page that shares nothing with any other."""
        page = self.browser.new_context().new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(url)
        return page

    def requests(self) -> list[str]:
        """Return method and status of each request so far, from the service's log."""
        lines = [json.loads(line) for line in self.server.stdout.read_text().splitlines()]
        return [f"{line['method']} {line['status']}" for line in lines if "method" in line]


@contextmanager
def open_stage(folder: Path, sqlite_file: Path) -> Iterator[Stage]:
    """All three, with an empty SQLite database in the folder."""
    url = f"sqlite:///{shutil.copy(sqlite_file, folder / 'taskapi.sqlite3')}"
    with chromium() as browser, front_end() as home, service(folder, url, home) as server:
        yield Stage(browser, home, server)


class User:
    """A user with a token, in a page."""

    def __init__(self, page: Page | Frame, port: int) -> None:
        self.page, self.api = page, f"http://127.0.0.1:{port}"
        self.bearer = f"Bearer {make_token()}"

    def call(self, method: str, path: str = "/api/tasks", body: object = None, **headers: str) -> Any:
        """Have the page's script send one request with the token; an underscore in a header's name is a dash."""
        given = {"Authorization": self.bearer, "Content-Type": "application/json"}
        given |= {name.replace("_", "-"): headers[name] for name in headers}
        return self.fetch(path, method=method, headers=given, body=json.dumps(body) if body else None)

    def fetch(self, path: str, **options: Any) -> Any:
        """Have the page's script send one request, and return what it can see of the answer."""
        return self.page.evaluate("([url, options]) => call(url, options)", [self.api + path, options])
