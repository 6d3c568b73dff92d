"""Every path under /api/ needs a token, except the public ones; a blueprint added tomorrow is guarded too."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, g, jsonify
from flask.testing import FlaskClient
from flask.views import MethodView

from tests.people import Person

HOME = "https://app.example.com"
NO_TOKEN = {"error": "Send a bearer token.", "code": "UNAUTHORIZED"}
NOT_FOUND = {"error": "There is nothing here.", "code": "NOT_FOUND"}

PAGE_FILES = "/api/docs/ui/<any('swagger-ui.css', 'swagger-ui-bundle.js'):name>"
# The rules under /api/ that need no token. To make another one public, its author has to say so here, too.
PUBLIC = {"/api/openapi.json", "/api/docs", PAGE_FILES}
UNKNOWN = ["/api/", "/api/nothing", "/api/tasksx", "/api//tasks", "/api/tasks//", "/api/tasks/x/y", "/api/tasks/%FF",
           "/api/tasks/x/", "/api/tasks/%2e%2e/users"]
NOT_PUBLIC = ["/api/docsx", "/api/Docs", "/api/openapi.jsonx", "/api/openapi", "/api/x/docs", "/api//docs"]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "BREW-COFFEE"]

notes = Blueprint("notes", __name__, url_prefix="/api/notes")
reports = Blueprint("reports", __name__)


@notes.get("")
def list_notes() -> Response:
    """Return the caller's id."""
    return jsonify({"user_id": g.user.id})


@notes.post("")
def create_note() -> tuple[Response, int]:
    """Return the caller's id."""
    return jsonify({"user_id": g.user.id}), 201


@reports.route("/api/reports/<int:number>/<path:name>", methods=["GET", "PROPFIND"])
def report(number: int, name: str) -> Response:
    """Answer without looking at the user."""
    return Response(name, headers={"Cache-Control": "public, max-age=3600"})


class Members(MethodView):
    """A view that says of itself which methods it has."""

    def get(self) -> Response:
        """Return the caller's id."""
        return jsonify({"user_id": g.user.id})

    delete = put = get


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: the guard asks none."""
    return sqlite_url


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """The service with blueprints of the test's own."""
    app = make_app(FRONTEND_URL=HOME, METRICS="1")
    app.register_blueprint(notes)
    app.register_blueprint(reports)
    app.add_url_rule("/api/members", view_func=Members.as_view("members"))
    return app


def requests_to(app: Flask, is_public: bool) -> Iterator[tuple[str, str]]:
    """Yield each method and path that a route takes, of the public ones or of all others under /api/."""
    for rule in app.url_map.iter_rules():
        public = rule.rule in PUBLIC or not rule.rule.startswith("/api/")
        if public == is_public:
            path = re.sub("<int:[^>]*>", "1", rule.rule.replace(PAGE_FILES, "/api/docs/ui/swagger-ui.css"))
            for method in sorted(rule.methods or ()):
                yield method, re.sub("<[^>]*>", "x", path)


def test_walk_meets_every_kind_of_rule(app: Flask) -> None:
    """The tests below cover only the rules that the walk finds."""
    guarded, public = set(requests_to(app, False)), set(requests_to(app, True))

    assert guarded >= {
        *(("GET", path) for path in ("/api/tasks", "/api/tasks/x", "/api/notes", "/api/members")),
        *[("POST", "/api/notes"), ("DELETE", "/api/members"), ("PROPFIND", "/api/reports/1/x")],
    }
    assert public >= {("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/api/openapi.json", "/api/docs")}


def test_every_rule_needs_a_token(app: Flask, client: FlaskClient) -> None:
    """No method of any route under /api/ answers without one."""
    requests = [(method, path) for method, path in requests_to(app, False) if method != "OPTIONS"]

    answers = {(method, path): client.open(path, method=method) for method, path in requests}

    challenge = 'Bearer realm="taskapi"'
    assert {request: (401, challenge) for request in requests} == {
        request: (answer.status_code, answer.headers.get("WWW-Authenticate")) for request, answer in answers.items()
    }
    assert [request for request, answer in answers.items() if request[0] != "HEAD" and answer.json != NO_TOKEN] == []


def test_every_preflight_passes_without_a_token(app: Flask, client: FlaskClient) -> None:
    """A browser sends none with it, and needs the headers of CORS to go on."""
    requests = [(method, path) for method, path in requests_to(app, False) if method not in ("OPTIONS", "PROPFIND")]

    def preflight(method: str, path: str) -> tuple[int, str | None, bool]:
        asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization"}
        answer = client.options(path, headers={"Origin": HOME} | asked)
        methods = answer.headers.get("Access-Control-Allow-Methods", "").split(", ")
        headers = answer.headers.get("Access-Control-Allow-Headers", "").lower().split(", ")
        is_allowed = method in methods and "authorization" in headers
        return answer.status_code, answer.headers.get("Access-Control-Allow-Origin"), is_allowed

    assert {request: (200, HOME, True) for request in requests} == {
        request: preflight(*request) for request in requests
    }


def test_every_answer_to_a_token_is_private(app: Flask, ana: Person) -> None:
    """This holds for every method, and for a view that sets another Cache-Control."""
    requests = [*requests_to(app, False)]

    answers = {(method, path): ana.call(method, path, json={"title": "Water the plants"}) for method, path in requests}

    assert {request: ["private, no-cache"] for request in requests} == {
        request: answer.headers.getlist("Cache-Control") for request, answer in answers.items()
    }
    assert [request for request, answer in answers.items() if answer.status_code == 401] == []


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 201)])
def test_new_blueprint_knows_who_asks(ana: Person, ben: Person, method: str, status: int) -> None:
    """The token's user is g.user in any view under /api/."""
    answers = [person.call(method, "/api/notes") for person in (ana, ben)]

    assert [(answer.status_code, answer.json) for answer in answers] == [
        (status, {"user_id": person.id}) for person in (ana, ben)
    ]


@pytest.mark.parametrize("path", [*UNKNOWN, *NOT_PUBLIC])
def test_unknown_path_under_api_needs_a_token(client: FlaskClient, ana: Person, path: str) -> None:
    """A caller without a token does not learn which paths and methods there are."""
    refused = {method: client.open(path, method=method) for method in METHODS}
    answer = ana.call("GET", path)

    assert {method: 401 for method in METHODS} == {method: got.status_code for method, got in refused.items()}
    assert [method for method, got in refused.items() if method != "HEAD" and got.json != NO_TOKEN] == []
    assert (answer.status_code, answer.json) == (404, NOT_FOUND)


def test_public_routes_need_no_token(app: Flask, client: FlaskClient) -> None:
    """They are the description, its page, health and metrics; their answers are not private."""
    requests = [*requests_to(app, True)]

    def ask(method: str, path: str) -> tuple[int, bool]:
        with client.open(path, method=method) as answer:  # some are open files
            return answer.status_code, "private" in answer.headers.get("Cache-Control", "")

    assert {request: (200, False) for request in requests} == {request: ask(*request) for request in requests}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}], ids=["no token", "a bad token"])
def test_refused_request_does_not_reach_the_view(app: Flask, client: FlaskClient, headers: dict[str, str]) -> None:
    """The guard comes before a blueprint's own hooks."""
    reached: list[str] = []
    secrets = Blueprint("secrets", __name__, url_prefix="/api/secrets")
    secrets.before_request(lambda: reached.append("hook"))

    @secrets.route("", methods=["GET", "POST"])
    def view() -> Any:
        reached.append("view")
        return {}

    app.register_blueprint(secrets)

    statuses = {method: client.open("/api/secrets", method=method, headers=headers).status_code for method in METHODS}

    assert ({method: 401 for method in METHODS}, []) == (statuses, reached)
