"""GET /api/tasks: filters, search and order."""

from urllib.parse import quote

import pytest
from sqlalchemy import text

from taskapi.database.models import db
from tests.conftest import POSTGRESQL_ALONE
from tests.people import Person


def test_it_works(ana: Person) -> None:
    """A bare array of whole tasks, the newest first."""
    first, second = ana.make(title="First"), ana.make(title="Second")

    response = ana.call("GET")

    assert (response.status_code, response.json) == (200, [second, first])
    assert [list(task) for task in response.json] == [list(first)] * 2
    assert "Link" not in response.headers


def test_nobody_has_tasks_yet(ana: Person) -> None:
    """A user that the service has never seen has an empty list."""
    response = ana.call("GET")

    assert (response.status_code, response.data) == (200, b"[]")


def test_trailing_slash_is_the_same_path(ana: Person) -> None:
    """No redirect, no 404."""
    task = ana.make()

    response = ana.call("GET", "/api/tasks/")

    assert (response.status_code, response.json) == (200, [task])


def test_head_answers_as_get_without_the_body(ana: Person) -> None:
    """A client may ask whether more follows, and for nothing else."""
    ana.make(), ana.make()

    head, get = ana.call("HEAD", "/api/tasks?limit=1"), ana.call("GET", "/api/tasks?limit=1")

    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Link"] == get.headers["Link"]
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


@pytest.mark.parametrize(("query", "titles"), [("true", ["Done"]), ("false", ["Open"])])
def test_is_completed_filters(ana: Person, query: str, titles: list[str]) -> None:
    """Done tasks, or open ones."""
    ana.make(title="Open"), ana.make(title="Done", is_completed=True)

    assert titles == ana.titles(f"?is_completed={query}")


def test_q_finds_text_in_title_and_description(ana: Person) -> None:
    """Whatever its case, and with no character meaning anything but itself."""
    ana.make(title="Buy milk", description="Soya\nor a_b, 100%! C:\\dir, é, d'oh, \U0001f331")
    ana.make(title="Nothing", description=None)
    there = ["milk", "BUY", "uy mi", "SOYA", "soya\n", "100%", "0%!", "_", "a_b", "\\", "c:\\d", "é", "'", "\U0001f331"]
    absent = ["milk soya", "1%0", "m%k", "b_y", "\\%", "\\_", "\\\\", '"', "NULL", "%%"]

    assert {q: ["Buy milk"] for q in there} == {q: ana.titles(f"?q={quote(q)}") for q in there}
    assert {q: [] for q in absent} == {q: ana.titles(f"?q={quote(q)}") for q in absent}


def test_q_finds_titles_of_tasks_without_description(ana: Person) -> None:
    """No description is no obstacle."""
    ana.make(title="Buy milk")

    assert ["Buy milk"] == ana.titles("?q=milk")


@POSTGRESQL_ALONE
@pytest.mark.own_database
def test_q_finds_what_stands_there_however_case_is_folded(ana: Person) -> None:
    """Unicode's rules fold a sigma at the end of a word to another letter than one within, and q may end anywhere."""
    with ana.app.app_context(), db.session.begin():
        db.session.execute(text("ALTER TABLE tasks ALTER title TYPE text COLLATE pg_unicode_fast"))
    ana.make(title="ΘΑΛΑΣΣΑ")

    assert ["ΘΑΛΑΣΣΑ"] * 3 == [title for q in ("ΘΑΛΑΣ", "θαλ", "ΣΑ") for title in ana.titles(f"?q={quote(q)}")]


@pytest.mark.parametrize("q", ["x" * 200, "\U0001f331" * 200])
def test_q_takes_200_characters(ana: Person, q: str) -> None:
    """Characters are code points, whatever room they take."""
    ana.make(title="Other"), ana.make(title=q)

    assert [q] == ana.titles(f"?q={quote(q)}")


def test_filters_narrow_together(ana: Person) -> None:
    """Every parameter has its say."""
    ana.make(title="milk"), ana.make(title="tea", is_completed=True)
    ana.make(title="milk done", is_completed=True), ana.make(title="a milk done", is_completed=True)

    assert ["a milk done", "milk done"] == ana.titles("?q=milk&is_completed=true&sort=title&limit=2")


@pytest.mark.parametrize(
    ("sort", "titles"),
    [
        ("created_at", ["banana", "apple", "cherry"]),
        ("-created_at", ["cherry", "apple", "banana"]),
        ("updated_at", ["apple", "cherry", "banana"]),
        ("-updated_at", ["banana", "cherry", "apple"]),
        ("title", ["apple", "banana", "cherry"]),
        ("-title", ["cherry", "banana", "apple"]),
    ],
)
def test_sort_orders(ana: Person, sort: str, titles: list[str]) -> None:
    """By one column, either way."""
    banana, _, _ = [ana.make(title=title) for title in ("banana", "apple", "cherry")]
    ana.call("PATCH", f"/api/tasks/{banana['id']}", json={"is_completed": True})

    assert titles == ana.titles(f"?sort={sort}")


@pytest.mark.parametrize(("sort", "reverse"), [("title", False), ("-title", True)])
def test_ties_go_by_id_in_the_same_direction(ana: Person, sort: str, reverse: bool) -> None:
    """The order is complete, so that pages can rely on it."""
    ids = [ana.make()["id"] for _ in range(5)]

    listed = [task["id"] for task in ana.call("GET", f"/api/tasks?sort={sort}").json]

    assert sorted(ids, reverse=reverse) == listed


@pytest.mark.parametrize("sort", ["title", "-created_at"])
def test_no_limit_is_50(ana: Person, sort: str) -> None:
    """What is not given has the value that the contract names."""
    for _ in range(51):
        ana.make()

    assert 50 == len(ana.titles(f"?sort={sort}"))
    assert 51 == len(ana.titles(f"?sort={sort}&limit=100"))


# A bad parameter never reaches the database, so one is enough.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("query", "name"),
    [
        *((f"limit={limit}", "limit") for limit in "0 101 -1 %2B5 +5 1.0 1e1 1_0 01 0x1 ten %D9%A3".split()),
        ("limit=", "limit"),
        ("limit=1" + "0" * 5000, "limit"),
        ("limit", "limit"),
        *((f"is_completed={value}", "is_completed") for value in ("", "True", "TRUE", "1", "0", "yes", "null")),
        ("q=", "q"),
        ("q=" + "x" * 201, "q"),
        ("q=%00", "q"),
        ("q=%FF", "q"),
        ("q=%ED%A0%80", "q"),
        *((f"sort={sort}", "sort") for sort in ("", "-", "id", "-id", "--title", "+title", "Title", "title,id")),
        ("sort=user_id", "sort"),
        ("cursor=", "cursor"),
        ("page=2", "page"),
        ("offset=0", "offset"),
        ("Limit=5", "Limit"),
        ("user_id=0f8fad5b-d9cb-469f-a165-70867728950e", "user_id"),
        ("%00=1", "\0"),
        ("=1", ""),
        ("%FF=1", "?"),
        ("limit=1&limit=1", "limit"),
        ("q=a&q=b", "q"),
        ("sort=title&limit=5&sort=title", "sort"),
        ("page=2&page=3", "page"),
    ],
)
def test_bad_parameter_answers_400_and_its_name(ana: Person, query: str, name: str) -> None:
    """Unknown, repeated or malformed: a client learns which one it was."""
    response = ana.call("GET", f"/api/tasks?{query}")

    assert response.status_code == 400
    details = response.json["details"]
    assert response.json == {
        "error": "Some fields break a rule.",
        "code": "VALIDATION_ERROR",
        "details": {name: details.get(name)},
    }
    assert details[name] and all(isinstance(message, str) for message in details[name])


@pytest.mark.parametrize("limit", ["0", "101", "-1", "ten", "9999999999"])
def test_a_bad_limit_is_told_the_limits(ana: Person, limit: str) -> None:
    """Whatever is wrong with it."""
    response = ana.call("GET", f"/api/tasks?limit={limit}")

    assert response.json["details"] == {"limit": ["Must be a whole number from 1 to 100."]}


def test_all_bad_parameters_are_named_at_once(ana: Person) -> None:
    """One round is enough to mend a query."""
    response = ana.call("GET", "/api/tasks?limit=0&sort=id&is_completed=1&page=2")

    assert {"limit", "sort", "is_completed", "page"} == set(response.json["details"])
