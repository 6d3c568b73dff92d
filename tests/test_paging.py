"""GET /api/tasks: pages, the Link header and cursors."""

import re
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import orjson
import pytest
from werkzeug.test import TestResponse

from tests.conftest import SQLITE_ALONE
from tests.people import Person

MESSAGE = "Give one cursor from a Link header of this list."
REFUSAL = {"error": f"cursor: {MESSAGE}", "code": "VALIDATION_ERROR", "details": {"cursor": [MESSAGE]}}
NOW = "2026-01-01T00:00:00.000000Z"
ANY_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def following(response: TestResponse) -> str | None:
    """Return where the Link header leads, if there is one."""
    match = re.fullmatch('<(.+)>; rel="next"', response.headers.get("Link", ""))
    return match and match[1]


def cursor_of(person: Person, query: str = "limit=1") -> str:
    """Return the cursor to the second page."""
    link = following(person.call("GET", f"/api/tasks?{query}"))
    assert link is not None
    return parse_qs(urlsplit(link).query)["cursor"][0]


def forge(owner: str, sort: str, inside: bytes) -> str:
    """Return a cursor with the right digest, which a reader of the source can make."""
    digest = blake2b(orjson.dumps(["tasks", owner, {"sort": sort}]) + inside, digest_size=8).digest()
    return urlsafe_b64encode(digest + inside).rstrip(b"=").decode()


def test_link_leads_on_until_the_last_page(ana: Person) -> None:
    """The last page has no Link, even when it is full."""
    for number in range(4):
        ana.make(title=f"{number}")

    first = ana.call("GET", "/api/tasks?limit=2")
    second = ana.call("GET", following(first) or "")

    assert [["3", "2"], ["1", "0"]] == [[task["title"] for task in page.json] for page in (first, second)]
    assert "Link" not in second.headers


@pytest.mark.parametrize("limit", [1, 100])
def test_a_page_holds_as_many_as_its_limit(ana: Person, limit: int) -> None:
    """A limit goes from 1 to 100."""
    for _ in range(limit + 1):
        ana.make()

    first = ana.call("GET", f"/api/tasks?limit={limit}")
    second = ana.call("GET", following(first) or "")

    assert [limit, 1] == [len(page.json) for page in (first, second)]


def test_link_keeps_every_parameter(ana: Person) -> None:
    """The next page is a page of the same list, with any characters in its filters."""
    q = 'a&b=c%+é\\"> _'
    given = {"is_completed": "true", "q": q, "sort": "-title", "limit": "1"}
    for number in range(3):
        ana.make(title=f"{number} {q}", is_completed=True)
        ana.make(title=f"{number} {q}")

    query = "&".join(f"{name}={quote(value)}" for name, value in given.items())
    first = ana.call("GET", f"/api/tasks?{query}")
    link = following(first) or ""
    second = ana.call("GET", link)
    third = ana.call("GET", following(second) or "")

    assert link.startswith("/api/tasks?")
    assert {name: [value] for name, value in given.items()} | {"cursor": [cursor_of(ana, query)]} == parse_qs(
        urlsplit(link).query, strict_parsing=True
    )
    assert [f"2 {q}", f"1 {q}", f"0 {q}"] == [page.json[0]["title"] for page in (first, second, third)]
    assert "Link" not in third.headers


@pytest.mark.parametrize(("sort", "reverse"), [("title", False), ("-title", True)])
def test_equal_keys_are_neither_skipped_nor_repeated(ana: Person, sort: str, reverse: bool) -> None:
    """The id decides where the next page begins among tasks of one title."""
    ids = sorted((ana.make()["id"] for _ in range(4)), reverse=reverse)

    pages = [ana.call("GET", f"/api/tasks?sort={sort}&limit=1")]
    while link := following(pages[-1]):
        pages.append(ana.call("GET", link))

    assert [[task_id] for task_id in ids] == [[task["id"] for task in page.json] for page in pages]


def test_another_limit_may_follow(ana: Person) -> None:
    """The size of a page is not part of the list."""
    for number in range(4):
        ana.make(title=f"{number}")

    assert ["2", "1", "0"] == ana.titles(f"?limit=50&cursor={cursor_of(ana)}")


@SQLITE_ALONE
@pytest.mark.parametrize(
    "other",
    ["sort=created_at", "sort=title", "sort=-updated_at", "is_completed=false", "is_completed=true", "q=plants", "q=P"],
)
def test_cursor_of_another_list_is_refused(ana: Person, other: str) -> None:
    """A cursor fits only the filters and the order that it came with."""
    ana.make(), ana.make()

    response = ana.call("GET", f"/api/tasks?{other}&cursor={cursor_of(ana, 'limit=1&q=p')}")

    assert (response.status_code, response.json) == (400, REFUSAL)


def test_cursor_of_a_filtered_list_is_refused_without_the_filter(ana: Person) -> None:
    """A filter that is left out is another filter."""
    ana.make(), ana.make()

    response = ana.call("GET", f"/api/tasks?cursor={cursor_of(ana, 'limit=1&is_completed=false')}")

    assert (response.status_code, response.json) == (400, REFUSAL)


def test_cursor_of_another_user_is_refused(ana: Person, ben: Person) -> None:
    """A cursor holds a title or a time of its owner's."""
    for person in (ana, ana, ben, ben):
        person.make()

    response = ben.call("GET", f"/api/tasks?limit=1&cursor={cursor_of(ana)}")

    assert (response.status_code, response.json) == (400, REFUSAL)


def test_cut_or_edited_cursor_is_refused(ana: Person) -> None:
    """Only the whole cursor is taken: no prefix of it, none with another character in it."""
    ana.make(), ana.make()
    cursor = cursor_of(ana)
    cut = [cursor[:length] for length in range(len(cursor))]
    edited = [f"{cursor[:at]}{'A' if cursor[at] != 'A' else 'B'}{cursor[at + 1:]}" for at in range(len(cursor))]
    padded = [cursor + more for more in ("=", "A", "AAAA", "%20", "%0A", ".", "%C3%A9", "%00")]

    answers = [ana.call("GET", f"/api/tasks?limit=1&cursor={wrong}") for wrong in cut + edited + padded]

    taken = [answer.request.path for answer in answers if (answer.status_code, answer.json) != (400, REFUSAL)]
    assert taken == []


@pytest.mark.parametrize(("sort", "key"), [("created_at", NOW), ("title", "A"), ("-title", "z")])
def test_forged_cursor_reaches_only_the_callers_tasks(ana: Person, ben: Person, sort: str, key: str) -> None:
    """A cursor is not signed. This also shows that forge() makes the right digest for the tests below."""
    for person in (ana, ben):
        person.make()

    response = ana.call("GET", f"/api/tasks?sort={sort}&cursor={forge(ana.id, sort, orjson.dumps([key, ANY_ID]))}")

    assert (response.status_code, [task["user_id"] for task in response.json]) == (200, [ana.id])


BAD_PLACES: list[Any] = [
    *([NOW, wrong] for wrong in ("1", None, 1, [ANY_ID])),
    *([wrong, ANY_ID] for wrong in ("\0", f"{NOW}\0", None, 1, True, [], ["a"], [[1], ["a"]], {}, {"a": 1})),
    [NOW, ANY_ID, 1],
    [NOW],
    [],
    {},
    {"key": NOW, "id": ANY_ID},
    1,
    None,
    "ab",
]
BAD_JSON = [b"", b"\xff", b"[", b"NaN", b"[" * 9_000, b'["\\ud800", "%b"]' % ANY_ID.encode()]
NO_TIMES = ["", "2026-02-30T00:00:00.000000Z", "2026-01-01", NOW[:-1], NOW.lower(), f" {NOW}"]


@SQLITE_ALONE
def test_bad_place_under_a_right_digest_is_refused(ana: Person) -> None:
    """A forged cursor is a bad parameter, and never a 500. A list that is sorted by time goes on from a time."""
    forged = [
        *(("title", inside) for inside in BAD_JSON),
        *(("created_at", orjson.dumps([key, ANY_ID])) for key in NO_TIMES),
        *((sort, orjson.dumps(place)) for sort in ("-created_at", "updated_at", "title") for place in BAD_PLACES),
    ]
    for sort, inside in forged:
        response = ana.call("GET", f"/api/tasks?sort={sort}&cursor={forge(ana.id, sort, inside)}")

        assert (response.status_code, response.json) == (400, REFUSAL), (sort, inside)


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/"])
def test_link_carries_the_path_that_the_service_is_mounted_under(ana: Person, path: str) -> None:
    """Behind a proxy that serves it below /backend, a client can follow the Link as it is."""
    ana.make(), ana.make()

    link = following(ana.call("GET", f"{path}?limit=1", environ_overrides={"SCRIPT_NAME": "/backend"})) or ""

    assert link.startswith("/backend/api/tasks?")
    assert ana.titles(f"?{urlsplit(link).query}") == ["Water the plants"]
