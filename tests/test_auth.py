"""Who is asking: which paths need a token, what counts as one, and what g.user holds afterwards."""

import pytest
from flask import Flask
from sqlalchemy import event

from taskapi.database.models import db
from tests.tokens import (
    CHALLENGE, EXPIRED, INVALID, ISSUER, ME, NO_TOKEN, NOW, USER, Members, ask, forge, me_app, refusal, whole
)

pytestmark = pytest.mark.usefixtures("frozen")

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get"]
TASK = "/api/tasks/0f8fad5b-d9cb-469f-a165-70867728950e"
UNDER = ["/api/tasks", "/api/tasks/", "/api/tasks//", TASK, f"{TASK}/", f"{TASK}/x", "/api/tasks/x", "/api/tasks/..",
         "/api/tasks?limit=0", "/api/tasks/%2e%2e/healthz", "/api/%74asks", "/api/tasks%2F", ME, "/api/", "/api//",
         "/api/Tasks", "/api/nothing", "/api//docs", "/api/docs2", "/api/Docs", "/api/openapi.json2",
         "/api/./docs", "/%61pi/tasks", "/api/%2E/tasks", "/api/docs;/../tasks"]
OUTSIDE = {"/healthz": 200, "/api": 404, "/": 404, "/Api/tasks": 404, "/apis/tasks": 404, "/api;/tasks": 404,
           "/api/docs": 200, "/api/docs/": 200, "/api/docs/x": 404, "/api/docs/../tasks": 404, "/api/openapi.json": 200,
           "/api/openapi.json/": 200, "/api/docs/%2e%2e/tasks": 404, "/api/docs/ui/x": 404, "/api/openapi.json/x": 404}


@pytest.fixture(scope="module")
def app() -> Flask:
    """It has a secret, and no database."""
    return me_app()


def _authorization(*values: str) -> list[tuple[str, str]]:
    return [("X-Request-ID", "same"), *(("Authorization", value) for value in values)]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="no-header"),
        *[
            pytest.param([value], id=repr(value))
            for value in ("", " ", "Bearer", "Bearer ", "bearer \t ", "Basic eDp5", "Basic", "Digest a=b", "x", ",",
                          f"Token {forge()}", f"JWT {forge()}", forge(), f"Bearer{forge()}", f"Bearer:{forge()}",
                          f"xBearer {forge()}", "Basic Bearer", "Basic x,Bearer", "Bearer\xa0x")
        ],
        pytest.param(["Basic eDp5", "Basic eDp5"], id="two-of-another-scheme"),
    ],
)
def test_missing_token_is_unauthorized(app: Flask, values: list[str]) -> None:
    """Without a bearer token the answer says that one is missing, not that it is invalid."""
    response = app.test_client().get(ME, headers=_authorization(*values))

    status, headers, _ = refusal(NO_TOKEN)
    assert whole(response) == (status, {**headers, "WWW-Authenticate": 'Bearer realm="taskapi"'}, NO_TOKEN)


@pytest.mark.parametrize(
    "values",
    [
        ["Bearer x"],
        ["Bearer ,"],
        [f"Bearer\t{forge()}"],
        [f"basic x, bearer {forge()}"],
        [f"basic x,bearer {forge()}"],
        [f"Bearer {forge()}, Basic x"],
        ["Basic eDp5", f"Bearer {forge()}"],
        [f"Bearer {forge()}", "Basic eDp5"],
        [f" Bearer {forge()}"],
    ],
    ids=lambda values: "+".join(value.replace(forge(), "TOKEN").replace("\t", "TAB") for value in values),
)
def test_token_among_other_things_is_invalid(app: Flask, values: list[str]) -> None:
    """The header has one scheme, one token and nothing else."""
    assert whole(app.test_client().get(ME, headers=_authorization(*values))) == refusal(INVALID)


def test_expired_token_has_a_code_of_its_own(app: Flask) -> None:
    """A client can tell an expired token from an invalid one."""
    response = ask(app, forge(claims={"exp": NOW - 31}))

    assert whole(response) == refusal(EXPIRED)
    assert response.headers["WWW-Authenticate"] == CHALLENGE


@pytest.mark.parametrize("path", UNDER)
def test_everything_under_api_needs_a_token(app: Flask, path: str) -> None:
    """Without a token the answer is 401, whether or not there is such a path or method."""
    client = app.test_client()
    without = [client.open(path, method=method) for method in METHODS]
    forged = [client.open(path, method=method, headers={"Authorization": "Bearer x.y.z"}) for method in METHODS]

    bodies = [[response.json for response in responses if response.request.method != "HEAD"]
              for responses in (without, forged)]
    assert {response.status_code for response in without + forged} == {401}
    assert bodies == [[NO_TOKEN] * (len(METHODS) - 1), [INVALID] * (len(METHODS) - 1)]
    assert not any("Allow" in response.headers for response in without + forged)


@pytest.mark.parametrize("path", ["//api/tasks", "///api/tasks", "api/tasks", "/api/\0", "/api/tasks\n"])
def test_odd_path_needs_a_token(app: Flask, path: str) -> None:
    """The guard and the routes read the path in the same way: there is no redirect to a host of the path's name."""
    response = app.test_client().get("/", environ_overrides={"PATH_INFO": path})

    assert (response.json, "Location" in response.headers) == (NO_TOKEN, False)


@pytest.mark.parametrize(("path", "status"), OUTSIDE.items())
def test_nothing_else_needs_a_token(app: Flask, path: str, status: int) -> None:
    """The description, its page and other paths need no token, and a wrong one changes nothing there."""
    for values in ([], ["Bearer x.y.z"]):
        assert app.test_client().get(path, headers=_authorization(*values)).status_code == status


def test_nothing_else_identifies_a_user(app: Flask) -> None:
    """No query parameter, cookie, body or other header does."""
    client = app.test_client()
    client.set_cookie("access_token", forge())
    client.set_cookie("Authorization", f"Bearer {forge()}")
    names = ["X-Authorization", "Proxy-Authorization", "X-Access-Token", "X-Forwarded-User", "X-User-Id"]
    headers = {name: f"Bearer {forge()}" for name in names}

    for path in (ME, f"{ME}?access_token={forge()}", f"{ME}?token={forge()}&authorization=Bearer%20{forge()}"):
        assert client.get(path, headers=headers).json == NO_TOKEN
    assert client.post("/api/tasks", data={"access_token": forge()}, headers=headers).json == NO_TOKEN


@pytest.mark.parametrize("body", [b"", b"{", b"x" * 70_000, b"[" * 10_000])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data", ""])
def test_token_is_checked_before_the_body(app: Flask, body: bytes, content_type: str) -> None:
    """Without a token a bad or large body changes nothing in the answer."""
    client = app.test_client()
    for method, path in (("POST", "/api/tasks"), ("PUT", TASK), ("PATCH", f"{TASK}?x")):
        answers = [
            client.open(path, method=method, data=body, content_type=content_type, headers=_authorization(*values)).json
            for values in ([], ["Bearer x"])
        ]

        assert answers == [NO_TOKEN, INVALID]


def test_body_is_not_read(app: Flask) -> None:
    """Without a token the service does not wait for the upload."""

    class Unread:
        def read(self, *size: int) -> bytes:
            raise AssertionError("the body was read")

        readline = readlines = __iter__ = read

    environ = {"wsgi.input": Unread(), "CONTENT_LENGTH": "10", "CONTENT_TYPE": "application/json"}

    assert app.test_client().post("/api/tasks", environ_overrides=environ).json == NO_TOKEN


def test_refused_token_runs_no_statement(sqlite_url: str) -> None:
    """A refused token needs no connection."""
    app = me_app(DATABASE_URL=sqlite_url)
    seen: list[str] = []
    with app.app_context():
        event.listen(db.engine, "connect", lambda *given: seen.append("connect"))
    tokens = ["x", forge(claims={"exp": 0}), forge(claims={"sub": ""}), forge({"alg": "none"})]

    for token in tokens:
        for method in ("GET", "POST", "DELETE"):
            headers = {"Authorization": f"Bearer {token}"}
            assert app.test_client().open(TASK, method=method, headers=headers).status_code == 401

    assert seen == []


@pytest.mark.parametrize(
    ("claims", "email"),
    [
        ({}, None),
        ({"email": "ana@example.com"}, "ana@example.com"),
        ({"email": "ana@example.com", "email_verified": True}, "ana@example.com"),
        ({"email": "ana@example.com", "email_verified": "true"}, "ana@example.com"),
        ({"email": "ana@example.com", "email_verified": False}, None),
        ({"email": "ana@example.com", "email_verified": "false"}, None),
        ({"email": None, "email_verified": True}, None),
        ({"email": ""}, None),
        ({"email": "Ana+x@Example.COM"}, "Ana+x@Example.COM"),
        ({"email": "用户@例子.世界"}, "用户@例子.世界"),
        ({"email": "x" * 254}, "x" * 254),
    ],
)
def test_user_has_an_id_and_perhaps_an_address(app: Flask, claims: Members, email: str | None) -> None:
    """The email is the token's, and None if it is not verified."""
    assert ask(app, forge(claims=claims)).json == {"id": USER, "email": email}


def test_users_do_not_mix(app: Flask) -> None:
    """Each request has its own user, and a request without a token has none."""
    client = app.test_client()
    first, second = ({"id": name * 8 + USER[8:], "email": None} for name in "ab")
    headers = [{"Authorization": f"Bearer {forge(claims={'sub': user['id']})}"} for user in (first, second)]

    answers = [client.get(ME, headers=given).json for given in (*headers, {}, headers[0])]

    assert answers == [first, second, NO_TOKEN, first]


@pytest.mark.parametrize(
    ("setting", "value", "good", "bad"),
    [
        ("JWT_ISSUER", ISSUER, {"iss": ISSUER}, {"iss": "https://issuer.example.com/"}),
        ("JWT_ISSUER", ISSUER, {}, {"iss": ...}),
        ("JWT_AUDIENCE", "tasks", {"aud": "tasks"}, {"aud": "task"}),
        ("JWT_AUDIENCE", "tasks", {"aud": ["x", "tasks"]}, {"aud": ["x"]}),
        ("JWT_AUDIENCE", "tasks", {"aud": ["tasks"]}, {"aud": ...}),
        ("JWT_AUDIENCE", "tasks", {"aud": ["tasks"]}, {"aud": []}),
    ],
)
def test_setting_is_obeyed(setting: str, value: str, good: Members, bad: Members) -> None:
    """A claim must match its setting exactly. Without the setting any value passes, or none."""
    strict, lax = me_app(**{setting: value}), me_app()

    assert [ask(strict, forge(claims=claims)).status_code for claims in (good, bad)] == [200, 401]
    assert [ask(lax, forge(claims=claims)).status_code for claims in (good, bad)] == [200, 200]


@pytest.mark.parametrize(("settings", "leeway"), [({}, 30), ({"JWT_LEEWAY": "0"}, 0), ({"JWT_LEEWAY": "300"}, 300)])
def test_leeway_is_obeyed(settings: dict[str, str], leeway: int) -> None:
    """The leeway is for exp, nbf and iat, and is 30 s when not given."""
    app = me_app(**settings)
    within = [{"exp": NOW - leeway + 1}, {"nbf": NOW + leeway}, {"iat": NOW + leeway}]
    beyond = [{"exp": NOW - leeway}, {"nbf": NOW + leeway + 1}, {"iat": NOW + leeway + 1}]

    assert [ask(app, forge(claims=claims)).status_code for claims in within] == [200] * 3
    assert [ask(app, forge(claims=claims)).json for claims in beyond] == [EXPIRED, INVALID, INVALID]
