"""What a request's body must be before its fields count."""

import gzip
import json
from codecs import BOM_UTF8
from io import BytesIO
from typing import Any
from uuid import uuid4

import pytest

from tests.people import Person

# A refused body never reaches the database, so one is enough.
ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
METHODS = pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])

LIMIT = 64 * 1024  # bytes

NO_OBJECT = 400, {"error": "Send a JSON object in UTF-8.", "code": "INVALID_REQUEST"}
TOO_LARGE = 413, {"error": "The body is larger than 64 KiB.", "code": "INVALID_REQUEST"}
NO_JSON = 415, {"error": "Send the body as application/json.", "code": "INVALID_REQUEST"}
ENCODED = 415, {"error": "Send the body without Content-Encoding.", "code": "INVALID_REQUEST"}

TASK = b'{"title": "Water the plants"}'


def path_for(person: Person, method: str) -> str:
    """Return where a body may be sent."""
    return "/api/tasks" if method == "POST" else f"/api/tasks/{person.make(title='As it was')['id']}"


def assert_untouched(person: Person) -> None:
    """Fail if the database holds any task but the one of path_for, as it was."""
    assert [] == [row.title for row in person.stored() if row.title != "As it was"]


@ON_ONE_DATABASE
@METHODS
@pytest.mark.parametrize(
    "body",
    [
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
    ],
)
def test_anything_but_a_json_object_in_utf_8_answers_400(ana: Person, method: str, body: bytes) -> None:
    """A body is JSON as RFC 8259 has it, in UTF-8, and an object."""
    response = ana.call(method, path_for(ana, method), data=body, content_type="application/json")

    assert (response.status_code, response.json) == NO_OBJECT
    assert_untouched(ana)


@METHODS
def test_byte_order_mark_before_the_json_is_ignored(ana: Person, method: str) -> None:
    """RFC 8259 section 8.1 lets a reader ignore it, and some editors write it."""
    response = ana.call(method, path_for(ana, method), data=BOM_UTF8 + TASK, content_type="application/json")

    assert (response.status_code, response.json["title"]) == (201 if method == "POST" else 200, "Water the plants")
    assert ["Water the plants"] == [row.title for row in ana.stored()]


@ON_ONE_DATABASE
@METHODS
@pytest.mark.parametrize("levels", [100, 1_000, 1_025, 10_000, 100_000])
@pytest.mark.parametrize(
    ("head", "opening", "closing", "tail"),
    [
        (b"", b"[", b"]", b""),
        (b"", b"[", b"", b""),
        (b"", b'{"a":', b"1}", b""),
        (b'{"title": ', b"[", b"]", b"}"),
        (b'{"title": "a", "user_id": {"a": ', b"[", b"]", b"}, \"b\": 1}"),
    ],
    ids=["lists", "open lists", "objects", "in title", "beside a title"],
)
def test_deep_nesting_answers_400(
    ana: Person, method: str, levels: int, head: bytes, opening: bytes, closing: bytes, tail: bytes
) -> None:
    """A nesting deeper than the parser's limit is the client's mistake, and no 500."""
    body = head + opening * levels + closing * levels + tail

    response = ana.call(method, path_for(ana, method), data=body, content_type="application/json")

    if len(body) > LIMIT:
        assert (response.status_code, response.json) == TOO_LARGE
    else:
        assert (response.status_code, response.json["code"] in ("INVALID_REQUEST", "VALIDATION_ERROR")) == (400, True)
    assert_untouched(ana)


@METHODS
@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
def test_64_kib_are_taken_and_one_byte_more_answers_413(ana: Person, method: str, chunked: bool) -> None:
    """It is the same with and without a Content-Length."""
    path = path_for(ana, method)

    def send(size: int) -> tuple[int, Any]:
        body = TASK.ljust(size)
        environ: dict[str, Any] = {"CONTENT_LENGTH": str(size)}
        if chunked:  # as gunicorn has it
            environ = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
        response = ana.call(
            method, path, input_stream=BytesIO(body), content_type="application/json", environ_overrides=environ
        )
        return response.status_code, response.json

    assert TOO_LARGE == send(LIMIT + 1)
    assert_untouched(ana)

    status, task = send(LIMIT)

    assert status == (201 if method == "POST" else 200)
    assert [task["title"]] == [row.title for row in ana.stored()] == ["Water the plants"]


@ON_ONE_DATABASE
@METHODS
def test_no_more_is_read_than_is_taken(ana: Person, method: str) -> None:
    """A body without a Content-Length may be endless."""
    stream = BytesIO(b" " * 100 * LIMIT)
    environ = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}

    response = ana.call(
        method, path_for(ana, method), input_stream=stream, content_type="application/json", environ_overrides=environ
    )

    assert (response.status_code, response.json) == TOO_LARGE
    assert stream.tell() <= 2 * LIMIT


@ON_ONE_DATABASE
@METHODS
def test_content_length_over_the_limit_answers_413(ana: Person, method: str) -> None:
    """The body is not read to find out."""
    response = ana.call(
        method,
        path_for(ana, method),
        input_stream=BytesIO(TASK),
        content_type="application/json",
        environ_overrides={"CONTENT_LENGTH": str(LIMIT + 1)},
    )

    assert (response.status_code, response.json) == TOO_LARGE
    assert_untouched(ana)


@ON_ONE_DATABASE
@METHODS
@pytest.mark.parametrize("is_terminated", [True, False], ids=["as gunicorn ends it", "as flask run does"])
def test_body_cut_short_answers_400(ana: Person, method: str, is_terminated: bool) -> None:
    """What ends before its Content-Length is not whole, even if it is JSON (RFC 9112 section 8)."""
    response = ana.call(
        method,
        path_for(ana, method),
        input_stream=BytesIO(TASK),
        content_type="application/json",
        environ_overrides={"CONTENT_LENGTH": str(len(TASK) + 10), "wsgi.input_terminated": is_terminated},
    )

    assert (response.status_code, response.json) == NO_OBJECT
    assert_untouched(ana)


class Broken(BytesIO):
    """A connection that breaks, or one with chunks that the server can't read."""

    def read(self, size: int | None = -1) -> bytes:
        """Raise what a socket would."""
        raise ConnectionResetError

    readinto = read  # type: ignore[assignment]


@ON_ONE_DATABASE
@METHODS
@pytest.mark.parametrize("is_terminated", [True, False], ids=["as gunicorn reads", "as flask run does"])
def test_body_that_breaks_off_answers_400(ana: Person, method: str, is_terminated: bool) -> None:
    """The client may be gone. It is not an error of the service's."""
    overrides = {"CONTENT_LENGTH": str(len(TASK)), "wsgi.input_terminated": is_terminated}
    if is_terminated:
        del overrides["CONTENT_LENGTH"]
    response = ana.call(
        method,
        path_for(ana, method),
        input_stream=Broken(),
        content_type="application/json",
        environ_overrides=overrides,
    )

    assert (response.status_code, response.json) == NO_OBJECT
    assert_untouched(ana)


@METHODS
@pytest.mark.parametrize(
    "content_type",
    ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_application_json_is_taken(ana: Person, method: str, content_type: str) -> None:
    """Its case does not matter, and its charset is UTF-8 anyway."""
    body = json.dumps({"title": "Café \U0001f331"}, ensure_ascii=False).encode()

    response = ana.call(method, path_for(ana, method), data=body, content_type=content_type)

    assert response.status_code in (200, 201)
    assert ["Café \U0001f331"] == [row.title for row in ana.stored()]


@ON_ONE_DATABASE
@METHODS
@pytest.mark.parametrize(
    "content_type",
    [
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
    ],
)
def test_another_content_type_answers_415(ana: Person, method: str, content_type: str | None) -> None:
    """A browser sends some of these across origins without asking first."""
    response = ana.call(method, path_for(ana, method), data=TASK, content_type=content_type)

    assert (response.status_code, response.json) == NO_JSON
    assert_untouched(ana)


@ON_ONE_DATABASE
@METHODS
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "zstd", "identity, gzip", "unknown"])
@pytest.mark.parametrize("body", [gzip.compress(TASK), TASK], ids=["compressed", "plain"])
def test_content_encoding_answers_415(ana: Person, method: str, encoding: str, body: bytes) -> None:
    """The answer says what to leave out, even if the body is not encoded at all."""
    headers = {"Content-Encoding": encoding}

    response = ana.call(
        method, path_for(ana, method), data=body, content_type="application/json", headers=headers
    )

    assert (response.status_code, response.json) == ENCODED
    assert_untouched(ana)


@METHODS
@pytest.mark.parametrize("encoding", ["identity", "Identity"])
def test_content_encoding_identity_is_taken(ana: Person, method: str, encoding: str) -> None:
    """It means that the body is not encoded (RFC 9110 section 8.4.1)."""
    headers = {"Content-Encoding": encoding}

    response = ana.call(
        method, path_for(ana, method), data=TASK, content_type="application/json", headers=headers
    )

    assert response.status_code in (200, 201)
    assert ["Water the plants"] == [row.title for row in ana.stored()]


@ON_ONE_DATABASE
def test_compressed_bytes_without_content_encoding_answer_400(ana: Person) -> None:
    """They are no JSON, and are not decompressed on a guess."""
    response = ana.call("POST", data=gzip.compress(TASK), content_type="application/json")

    assert (response.status_code, response.json) == NO_OBJECT
    assert ana.stored() == []


@ON_ONE_DATABASE
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("condition", [{}, {"If-Match": '"other"'}], ids=["always", "at a version"])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "INVALID_REQUEST"),
        (b"[]", "INVALID_REQUEST"),
        (b"{}", "VALIDATION_ERROR"),
        (b'{"x":1}', "VALIDATION_ERROR"),
    ],
)
def test_body_is_checked_before_the_task_is_looked_up(
    ana: Person, method: str, condition: dict[str, str], body: bytes, code: str
) -> None:
    """A bad body gets the same 400 for a task, for a missing one, and for a malformed id."""
    paths = [path_for(ana, method), f"/api/tasks/{uuid4()}", "/api/tasks/1"]

    answers = [ana.call(method, path, data=body, content_type="application/json", headers=condition) for path in paths]

    assert {(400, code)} == {(answer.status_code, answer.json["code"]) for answer in answers}
    assert 1 == len({answer.data for answer in answers})
    assert_untouched(ana)


@pytest.mark.parametrize("body", [b"", b"{", b"null", b'{"title": 5}'])
@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}], ids=str)
def test_delete_ignores_a_body(ana: Person, body: bytes, headers: dict[str, str]) -> None:
    """Some clients send one along."""
    response = ana.call(
        "DELETE", path_for(ana, "DELETE"), data=body, content_type="application/json", headers=headers
    )

    assert (response.status_code, ana.stored()) == (200, [])
