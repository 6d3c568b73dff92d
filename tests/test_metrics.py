"""/metrics: what Prometheus is told, by one process and by several."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import psutil
import psycopg2
import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from taskapi.database.models import db
from tests.keyserver import KeyServer
from tests.people import SECRET, Person, make_token
from tests.servers import PATIENCE, Proxy, Server, copy_project, serving
from tests.test_faults import OWN_CONNECTIONS
from tests.tokens import ISSUER, ed25519

METRICS = {"METRICS": "1"}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: nothing here depends on which."""
    return sqlite_url


def samples(page: str) -> dict[str, float]:
    """Return the numbers of a page by name and labels."""
    return {
        " ".join([sample.name, *(sample.labels[label] for label in sorted(sample.labels))]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def look(app: Flask) -> dict[str, float]:
    """Return the numbers that Prometheus gets of an app."""
    response = app.test_client().get("/metrics")
    assert response.mimetype == "text/plain"
    return samples(response.text)


def test_it_is_off(app: Flask, ana: Person) -> None:
    """Without the setting the path does not exist."""
    assert ana.call("GET", "/metrics").status_code == 404


def test_requests_are_counted_and_timed(make_app: Callable[..., Flask]) -> None:
    """By route, method and status. A path holds no id, and a method that a client made up is "other"."""
    ana = Person(make_app(**METRICS))
    task = ana.make()
    ana.call("GET", f"/api/tasks/{task['id']}")
    ana.call("GET", f"/api/tasks/{task['user_id']}")
    ana.call("MAKE-UP", "/somewhere")

    numbers = look(ana.app)

    assert {name: number for name, number in numbers.items() if name.startswith("taskapi_requests_total")} == {
        "taskapi_requests_total POST /api/tasks 201": 1,
        "taskapi_requests_total GET /api/tasks/<task_id> 200": 1,
        "taskapi_requests_total GET /api/tasks/<task_id> 404": 1,
        "taskapi_requests_total other none 404": 1,
    }
    assert numbers["taskapi_request_seconds_count GET /api/tasks/<task_id>"] == 2
    buckets = [name.split()[1] for name in numbers if re.match("taskapi_request_seconds_bucket .* other", name)]
    assert buckets == "0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 +Inf".split()
    assert numbers["taskapi_request_seconds_bucket +Inf GET /api/tasks/<task_id>"] == 2
    assert 0 < numbers["taskapi_request_seconds_sum GET /api/tasks/<task_id>"] < PATIENCE


def test_connections_in_use_are_counted(make_app: Callable[..., Flask]) -> None:
    """A connection counts while a statement uses it."""
    app = make_app(**METRICS)
    with app.app_context(), db.engines["autocommit"].connect():
        assert look(app)["taskapi_pool_connections_in_use"] == 1

    assert look(app)["taskapi_pool_connections_in_use"] == 0


@pytest.mark.own_database
def test_retries_are_counted(make_app: Callable[..., Flask], postgresql_url: str) -> None:
    """A statement whose connection was dead ran twice: here both statements of one request."""
    with Proxy(postgresql_url, b"SELECT tasks.id", run_it=False, times=0) as proxy:
        ana = Person(make_app(DATABASE_URL=proxy.url, **METRICS))
        path = f"/api/tasks/{ana.make()['id']}"
        with closing(psycopg2.connect(postgresql_url)) as other, other.cursor() as cursor:
            cursor.execute(f"SELECT pg_terminate_backend(pid, 5000) {OWN_CONNECTIONS}")
        proxy.times = 1

        assert ana.call("DELETE", path, headers={"If-Match": '"1"'}).status_code == 412
        assert look(ana.app)["taskapi_statement_retries_total"] == 2


def test_age_of_the_key_set(make_app: Callable[..., Flask]) -> None:
    """The metric is the time at which the key set was loaded."""
    pair = ed25519()
    with KeyServer(pair.jwk()) as server:
        app = make_app(JWT_SECRET="", JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER, **METRICS)
        name = f"taskapi_key_set_loaded_timestamp_seconds {server.url}"
        before = look(app)
        headers = {"Authorization": f"Bearer {pair.token(claims={'exp': time.time() + 60})}"}
        assert app.test_client().get("/api/tasks", headers=headers).status_code == 200

    assert name not in before
    assert time.time() - PATIENCE < look(app)[name] <= time.time()


def test_each_number_says_what_it_is(make_app: Callable[..., Flask]) -> None:
    """Each has a type, labels, and a sentence for people who build a dashboard."""
    pair = ed25519()
    with KeyServer(pair.jwk()) as server:
        client = make_app(JWT_SECRET="", JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER, **METRICS).test_client()
        headers = {"Authorization": f"Bearer {pair.token(claims={'exp': time.time() + 60})}"}
        assert client.get("/api/tasks", headers=headers).status_code == 200
    families = [
        family
        for family in text_string_to_metric_families(client.get("/metrics").text)
        if not family.name.endswith("_created")
    ]

    assert [
        (family.name, family.type, family.documentation, {*family.samples[0].labels} - {"le"}) for family in families
    ] == [
        ("taskapi_requests", "counter", "Requests answered.", {"route", "method", "status"}),
        ("taskapi_request_seconds", "histogram", "From request to answer.", {"route", "method"}),
        ("taskapi_statement_retries", "counter", "Statements run again on a fresh connection.", set()),
        ("taskapi_pool_connections_in_use", "gauge", "Database connections in use.", set()),
        ("taskapi_key_set_loaded_timestamp_seconds", "gauge", "When the oldest key set was loaded.", {"url"}),
    ]


def test_folder_of_counts_is_read(
    make_app: Callable[..., Flask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PROMETHEUS_MULTIPROC_DIR the page has the counts of all processes."""
    app = make_app(**METRICS)
    app.test_client().get("/healthz")
    other = "from prometheus_client import Counter; Counter('taskapi_requests', '', ['route']).labels('/x').inc(3)"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    subprocess.run([sys.executable, "-c", other], check=True)

    assert look(app) == {"taskapi_requests_total /x": 3}


@pytest.fixture
def server(tmp_path: Path, sqlite_url: str) -> Iterator[Server]:
    """Two workers that count together."""
    settings = {"DATABASE_URL": sqlite_url, "JWT_SECRET": SECRET, "WEB_CONCURRENCY": "2", "TMPDIR": str(tmp_path)}
    command = ("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app")
    with serving(*command, cwd=copy_project(tmp_path), **settings, **METRICS) as server:
        yield server


def scrape(server: Server) -> dict[str, float]:
    """Return the numbers of a gunicorn over a connection that ends."""
    with urlopen(f"http://127.0.0.1:{server.port}/metrics") as response:
        return samples(response.read().decode())


@pytest.mark.slow
def test_workers_count_together(server: Server, tmp_path: Path) -> None:
    """Each worker shows all requests, before and after a reload. Gauges end with their worker, and no file is left."""
    bearer = f"Bearer {make_token()}"
    for _ in range(40):
        server.fetch("GET", "/api/tasks", Authorization=bearer)
    before = [scrape(server)["taskapi_requests_total GET /api/tasks 200"] for _ in range(10)]
    os.kill(server.process.pid, signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE
    while server.stdout.read_text().count("Worker exiting") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.fetch("GET", "/api/tasks", Authorization=bearer)
    after = scrape(server)

    assert before == [40] * 10
    assert after["taskapi_requests_total GET /api/tasks 200"] == 41
    assert after["taskapi_pool_connections_in_use"] == 0
    workers = {str(process.pid) for process in psutil.Process(server.process.pid).children()}
    assert {path.stem.split("_")[-1] for path in tmp_path.glob("taskapi-*/gauge_live*.db")} <= workers
    assert len(list(tmp_path.glob("taskapi-*/counter_*.db"))) >= 2
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0
    assert list(tmp_path.glob("taskapi-*")) == []


@pytest.mark.slow
def test_key_set_has_one_age(tmp_path: Path, sqlite_url: str) -> None:
    """It is the age in the process that loaded it first."""
    pair = ed25519()
    with KeyServer(pair.jwk()) as keys:
        settings = {"DATABASE_URL": sqlite_url, "JWT_JWKS_URL": keys.url, "JWT_ISSUER": ISSUER}
        command = ("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app")
        with serving(*command, cwd=copy_project(tmp_path), **settings, **METRICS) as server:
            bearer = f"Bearer {pair.token(claims={'exp': time.time() + 60})}"
            assert server.fetch("GET", "/api/tasks", Authorization=bearer) == (200, [])

            assert f"taskapi_key_set_loaded_timestamp_seconds {keys.url}" in scrape(server)
