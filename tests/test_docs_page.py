"""The page to read and try the API, in a real Chromium: below other paths, with readable colours, after a reload."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.nginx import free_port, wait_for
from tests.npm import install
from tests.people import SECRET, make_token
from tests.servers import PATIENCE, PROJECT, Server, copy_project, require, serving
from tests.stage import chromium

pytestmark = pytest.mark.slow

# What axe-core finds in the elements that Swagger UI 5 makes; the page can't change them.
OF_SWAGGER_UI = {
    "button-name",
    "heading-order",
    "label",
    "label-content-name-mismatch",
    "landmark-unique",
    "nested-interactive",
    "region",
    "scrollable-region-focusable",
    "select-name",
}

CONF = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /backend/ {{ proxy_pass {upstream}; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the module."""
    with chromium() as browser:
        yield browser


@contextmanager
def service(folder: Path, sqlite_file: Path, **settings: str) -> Iterator[Server]:
    """The service on an empty SQLite database."""
    url = f"sqlite:///{shutil.copy(sqlite_file, folder / 'taskapi.sqlite3')}"
    settings |= {"JWT_SECRET": SECRET, "DATABASE_URL": url, "HOME": str(folder)}
    with serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=copy_project(folder), **settings) as server:
        yield server


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[str]:
    """Yield the address of an nginx that passes /backend/ on."""
    port = free_port()
    (folder / "nginx.conf").write_text(CONF.format(folder=folder, port=port, upstream=upstream))
    command = [require("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        wait_for(port, process, folder)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def open_docs(browser: Browser, url: str, **options: Any) -> tuple[Page, list[str]]:
    """Return the page, and a list of what the browser complains of."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(2 * PATIENCE * 1000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    page.locator("#operations-tasks-createTask").wait_for()
    return page, complaints


def authorize(page: Page, token: str) -> None:
    """Enter a token."""
    page.locator(".scheme-container .authorize").click()
    page.locator(".auth-container input").fill(token)
    page.locator(".auth-btn-wrapper .authorize").click()
    page.locator(".auth-btn-wrapper .btn-done").click()


def execute(page: Page, operation: str) -> str:
    """Try an operation as it stands there, and return the status."""
    block = page.locator(f"#operations-tasks-{operation}")
    block.locator(".opblock-summary-control").click()
    block.locator(".try-out__btn").click()
    block.locator(".execute").click()
    return block.locator(".live-responses-table tbody tr").first.locator(".response-col_status").inner_text()


@pytest.mark.parametrize("path", ["/api/docs", "/api/docs/"])
@pytest.mark.parametrize("mounted", [True, False], ids=["SCRIPT_NAME", "no SCRIPT_NAME"])
def test_page_works_below_a_path(
    browser: Browser, tmp_path: Path, sqlite_file: Path, mounted: bool, path: str
) -> None:
    """Its files, the description and what is tried stay below the path, whether or not the service knows it."""
    settings = {"SCRIPT_NAME": "/backend"} if mounted else {}
    (tmp_path / "nginx").mkdir()

    with service(tmp_path, sqlite_file, **settings) as server:
        upstream = f"http://127.0.0.1:{server.port}{'' if mounted else '/'}"
        with nginx(tmp_path / "nginx", upstream) as origin:
            page, complaints = open_docs(browser, f"{origin}/backend{path}")
            authorize(page, make_token())
            status = execute(page, "createTask")
            asked = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
            page.context.close()

    assert (status, complaints) == ("201", [])
    assert sorted(url.removeprefix(f"{origin}/backend") for url in asked) == [
        "/api/docs/ui/swagger-ui-bundle.js",
        "/api/docs/ui/swagger-ui.css",
        "/api/openapi.json",
        "/api/tasks",
    ]


def test_token_outlives_a_reload_in_debug_mode(browser: Browser, tmp_path: Path, sqlite_file: Path) -> None:
    """Who changes code and reloads does not enter it again; Authorize says where a token comes from."""
    with service(tmp_path, sqlite_file, FLASK_DEBUG="1") as server:
        page, complaints = open_docs(browser, f"http://127.0.0.1:{server.port}/")  # a redirect to the page
        page.locator(".scheme-container .authorize").click()
        text = page.locator(".auth-container").inner_text()
        page.locator(".close-modal").click()
        authorize(page, make_token())

        page.reload()
        page.locator("#operations-tasks-createTask").wait_for()
        status = execute(page, "createTask")
        page.context.close()

    assert (status, complaints) == ("201", [])
    assert "flask token" in text and "without the word Bearer" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible(browser: Browser, tmp_path: Path, sqlite_file: Path, scheme: Any) -> None:
    """axe-core finds nothing but what Swagger UI's own elements lack: with everything open, contrasts are right."""
    axe = install(PROJECT / "tests" / "axe", tmp_path / "axe") / "axe-core" / "axe.min.js"

    with service(tmp_path, sqlite_file) as server:
        page, complaints = open_docs(browser, f"http://127.0.0.1:{server.port}/api/docs", color_scheme=scheme)
        authorize(page, make_token())
        for operation in ("createTask", "listTasks"):
            execute(page, operation)
        for operation in ("getTask", "putTask", "updateTask", "deleteTask"):
            page.locator(f"#operations-tasks-{operation} .opblock-summary-control").click()
            page.locator(f"#operations-tasks-{operation} .try-out__btn").click()
        page.locator("section.models button").first.click()
        page.get_by_text("Expand all").first.wait_for()
        page.evaluate(axe.read_text())
        found = page.evaluate("axe.run()")
        page.context.close()

    ours = [(one["id"], node["html"]) for one in found["violations"] for node in one["nodes"]]
    assert [one for one in ours if one[0] not in OF_SWAGGER_UI] == []
    assert "color-contrast" in [one["id"] for one in found["passes"]]
    assert complaints == []
