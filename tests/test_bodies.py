"""What a request's body must be before its fields are checked."""

import gzip
import json
from codecs import BOM_UTF8
from io import BytesIO
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import SQLITE_ALONE
from tests.people import Person

LIMIT = 64 * 1024  # bytes

NO_OBJECT = 400, {"error": "Send a JSON object in UTF-8.", "code": "INVALID_REQUEST"}
TOO_LARGE = 413, {"error": "The body is larger than 64 KiB.", "code": "INVALID_REQUEST"}
NO_JSON = 415, {"error": "Send the body as application/json.", "code": "INVALID_REQUEST"}
ENCODED = 415, {"error": "Send the body without Content-Encoding.", "code": "INVALID_REQUEST"}

TASK = b'{"title": "Water the plants"}'


class Sender:
    """Sends bodies to create a task, or to change the one that there is."""

    def __init__(self, person: Person, method: str) -> None:
        self.person, self.method = person, method
        self.path = "/api/tasks" if method == "POST" else f"/api/tasks/{person.make(title='As it was')['id']}"
        self.before = self.titles()

    def send(self, body: bytes | None = TASK, content_type: str | None = "application/json", **options: Any) -> Any:
        """Send the body, and return status and JSON."""
        response = self.person.call(self.method, self.path, data=body, content_type=content_type, **options)
        return response.status_code, response.json

    def stream(self, stream: BytesIO, **environ: Any) -> Any:
        """Send a body as the server has it, with these variables of WSGI, and return status and JSON."""
        return self.send(None, input_stream=stream, environ_overrides=environ)

    def titles(self) -> list[str]:
        """Return what is stored."""
        return [row.title for row in self.person.stored()]

    def assert_taken(self, answer: tuple[int, Any], title: str = "Water the plants") -> None:
        """Fail unless the body was taken, and its title is stored."""
        assert (answer[0], answer[1]["title"]) == (201 if self.method == "POST" else 200, title)
        assert self.titles() == [title]


@pytest.fixture(params=["POST", "PUT", "PATCH"])
def sender(request: pytest.FixtureRequest, ana: Person) -> Sender:
    """Each method that takes a body."""
    return Sender(ana, request.param)


BAD = [
    b"",
    b" ",
    TASK[:-1],
    TASK + b"}",
    TASK + TASK,
    TASK + b"\0",
    b"null",
    b"true",
    b"5",
    b'"title"',
    b"[]",
    b"[%b]" % TASK,
    b"title=Water+the+plants",
    b"{'title': 'Water the plants'}",
    b'{title: "Water the plants"}',
    b'{"title": "Water the plants",}',
    b'{"title": "Water the plants"} // now',
    b'{"title": "Water\nthe plants"}',
    b'{"title": NaN}',
    b'{"title": "a", "is_completed": NaN}',
    b'{"title": "a", "description": Infinity}',
    b'{"title": "a", "user_id": -Infinity}',
    b'{"title": "a", "created_at": 01}',
    b'{"title": "\\ud800"}',
    b'{"title": "a\\udfffb"}',
    b'{"title": "a", "\\ud800": 1}',
    b'{"title": "\\x41"}',
    '{"title": "Café"}'.encode("latin-1"),
    b'{"title": "\xed\xa0\x80"}',
    b'{"title": "\xc0\xaf"}',
    BOM_UTF8,
    BOM_UTF8 + BOM_UTF8 + TASK,
    b" " + BOM_UTF8 + TASK,
    TASK + BOM_UTF8,
    TASK.decode().encode("utf-16"),
    TASK.decode().encode("utf-16-le"),
    TASK.decode().encode("utf-32"),
    b"\x80",
    gzip.compress(TASK),  # and nothing is decompressed on a guess
]


@SQLITE_ALONE
def test_anything_but_a_json_object_in_utf_8_answers_400(sender: Sender) -> None:
    """A body is JSON as RFC 8259 has it, in UTF-8, and an object."""
    assert {body: sender.send(body) for body in BAD} == dict.fromkeys(BAD, NO_OBJECT)
    assert sender.titles() == sender.before


def test_byte_order_mark_before_the_json_is_ignored(sender: Sender) -> None:
    """RFC 8259 section 8.1 lets a reader ignore it, and some editors write it."""
    sender.assert_taken(sender.send(BOM_UTF8 + TASK))


# What opens a level and what closes one, with what stands before all levels and behind them.
NESTED = {
    "lists": (b"", b"[", b"]", b""),
    "open lists": (b"", b"[", b"", b""),
    "objects": (b"", b'{"a":', b"1}", b""),
    "in title": (b'{"title": ', b"[", b"]", b"}"),
    "beside a title": (b'{"title": "a", "user_id": {"a": ', b"[", b"]", b"}, \"b\": 1}"),
}


@SQLITE_ALONE
@pytest.mark.parametrize("form", NESTED)
def test_deep_nesting_answers_400(sender: Sender, form: str) -> None:
    """A nesting deeper than the parser's limit is the client's mistake, and no 500."""
    head, opening, closing, tail = NESTED[form]
    for levels in (100, 1_000, 1_025, 10_000, 100_000):
        body = head + opening * levels + closing * levels + tail

        status, answer = sender.send(body)

        if len(body) > LIMIT:
            assert (status, answer) == TOO_LARGE
        else:
            assert (status, answer["code"] in ("INVALID_REQUEST", "VALIDATION_ERROR")) == (400, True)
    assert sender.titles() == sender.before


# A body without a Content-Length, as gunicorn hands it over.
CHUNKED = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
def test_64_kib_are_taken_and_one_byte_more_answers_413(sender: Sender, chunked: bool) -> None:
    """It is the same with and without a Content-Length."""

    def send(size: int) -> Any:
        return sender.stream(BytesIO(TASK.ljust(size)), **CHUNKED if chunked else {"CONTENT_LENGTH": str(size)})

    assert send(LIMIT + 1) == TOO_LARGE
    assert sender.titles() == sender.before
    sender.assert_taken(send(LIMIT))


@SQLITE_ALONE
def test_no_more_is_read_than_is_taken(sender: Sender) -> None:
    """A body without a Content-Length may be endless."""
    stream = BytesIO(b" " * 100 * LIMIT)

    assert sender.stream(stream, **CHUNKED) == TOO_LARGE
    assert stream.tell() <= 2 * LIMIT


@SQLITE_ALONE
def test_content_length_over_the_limit_answers_413(sender: Sender) -> None:
    """The body is not read to find out."""
    assert sender.stream(BytesIO(TASK), CONTENT_LENGTH=str(LIMIT + 1)) == TOO_LARGE
    assert sender.titles() == sender.before


class Broken(BytesIO):
    """A connection that breaks, or one with chunks that the server can't read."""

    def read(self, size: int | None = -1) -> bytes:
        """Raise what a socket would."""
        raise ConnectionResetError

    readinto = read  # type: ignore[assignment]


@SQLITE_ALONE
@pytest.mark.parametrize("is_terminated", [True, False], ids=["as gunicorn ends it", "as flask run does"])
def test_body_cut_short_answers_400(sender: Sender, is_terminated: bool) -> None:
    """A body that ends before its Content-Length is not whole, even if it is JSON (RFC 9112 section 8)."""
    end: dict[str, Any] = {"wsgi.input_terminated": is_terminated}
    length = {} if is_terminated else {"CONTENT_LENGTH": str(len(TASK))}

    assert sender.stream(BytesIO(TASK), CONTENT_LENGTH=str(len(TASK) + 10), **end) == NO_OBJECT
    assert sender.stream(Broken(), **length, **end) == NO_OBJECT
    assert sender.titles() == sender.before


def test_application_json_is_taken(sender: Sender) -> None:
    """The case does not matter, and the charset is UTF-8."""
    body = json.dumps({"title": "Café \U0001f331"}, ensure_ascii=False).encode()

    sender.assert_taken(sender.send(body), "Café \U0001f331")
    for kind in ("APPLICATION/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'):
        assert sender.send(body, kind)[1]["title"] == "Café \U0001f331"


OTHER_TYPES = [
    None,
    "",
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonp",
    "application/merge-patch+json",
    "application/vnd.api+json",
    "text/plain; application/json",
    "json",
]


@SQLITE_ALONE
def test_another_content_type_answers_415(sender: Sender) -> None:
    """A browser sends some of these across origins without a preflight."""
    assert {kind: sender.send(TASK, kind) for kind in OTHER_TYPES} == dict.fromkeys(OTHER_TYPES, NO_JSON)
    assert sender.titles() == sender.before


@SQLITE_ALONE
@pytest.mark.parametrize("body", [gzip.compress(TASK), TASK], ids=["compressed", "plain"])
def test_content_encoding_answers_415(sender: Sender, body: bytes) -> None:
    """The answer says what to leave out, even if the body is not compressed."""
    encodings = ["gzip", "GZIP", "br", "deflate", "zstd", "identity, gzip", "unknown"]

    answers = {encoding: sender.send(body, headers={"Content-Encoding": encoding}) for encoding in encodings}

    assert answers == dict.fromkeys(encodings, ENCODED)
    assert sender.titles() == sender.before


@pytest.mark.parametrize("encoding", ["identity", "Identity"])
def test_content_encoding_identity_is_taken(sender: Sender, encoding: str) -> None:
    """It means that the body is not encoded (RFC 9110 section 8.4.1)."""
    sender.assert_taken(sender.send(headers={"Content-Encoding": encoding}))


@SQLITE_ALONE
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("condition", [{}, {"If-Match": '"other"'}], ids=["always", "at a version"])
def test_body_is_checked_before_the_task_is_looked_up(ana: Person, method: str, condition: dict[str, str]) -> None:
    """A bad body gets the same 400 for a task, for a missing one, and for a malformed id."""
    task = ana.make()
    paths = [f"/api/tasks/{task_id}" for task_id in (task["id"], uuid4(), "1")]
    request: dict[str, Any] = {"content_type": "application/json", "headers": condition}

    for body, code in (
        (b"", "INVALID_REQUEST"),
        (b"[]", "INVALID_REQUEST"),
        (b"{}", "VALIDATION_ERROR"),
        (b'{"x":1}', "VALIDATION_ERROR"),
    ):
        answers = [ana.call(method, path, data=body, **request) for path in paths]

        assert {(answer.status_code, answer.json["code"]) for answer in answers} == {(400, code)}
        assert len({answer.data for answer in answers}) == 1
    assert ana.call("GET").json == [task]


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}], ids=str)
def test_delete_ignores_a_body(ana: Person, headers: dict[str, str]) -> None:
    """Some clients send one along."""
    for body in (b"", b"{", b"null", b'{"title": 5}'):
        path = f"/api/tasks/{ana.make()['id']}"

        response = ana.call("DELETE", path, data=body, content_type="application/json", headers=headers)

        assert (response.status_code, ana.stored()) == (200, [])
