"""GET /api/tasks: filters, search and order."""

from urllib.parse import quote

import pytest

from tests.conftest import SQLITE_ALONE
from tests.people import Person


def test_it_works(ana: Person) -> None:
    """The answer is a bare array of whole tasks, the newest first."""
    first, second = ana.make(title="First"), ana.make(title="Second")

    response = ana.call("GET")

    assert (response.status_code, response.json) == (200, [second, first])
    assert [list(task) for task in response.json] == [list(first)] * 2
    assert "Link" not in response.headers


def test_new_user_has_an_empty_list(ana: Person) -> None:
    """A user without a row is no error."""
    response = ana.call("GET")

    assert (response.status_code, response.data) == (200, b"[]")


@pytest.mark.parametrize(("query", "titles"), [("true", ["Done"]), ("false", ["Open"])])
def test_is_completed_filters(ana: Person, query: str, titles: list[str]) -> None:
    """The list has completed tasks, or open ones."""
    ana.make(title="Open"), ana.make(title="Done", is_completed=True)

    assert titles == ana.titles(f"?is_completed={query}")


def test_q_finds_text_in_title_and_description(ana: Person) -> None:
    """Case does not matter, and every character stands for itself."""
    ana.make(title="Buy milk", description="Soya\nor a_b, 100%! C:\\dir, é, d'oh, \U0001f331")
    ana.make(title="Nothing", description=None)
    there = ["milk", "BUY", "uy mi", "SOYA", "soya\n", "100%", "0%!", "_", "a_b", "\\", "c:\\d", "é", "'", "\U0001f331"]
    absent = ["milk soya", "1%0", "m%k", "b_y", "\\%", "\\_", "\\\\", '"', "NULL", "%%"]

    assert {q: ["Buy milk"] for q in there} == {q: ana.titles(f"?q={quote(q)}") for q in there}
    assert {q: [] for q in absent} == {q: ana.titles(f"?q={quote(q)}") for q in absent}


def test_q_finds_titles_of_tasks_without_description(ana: Person) -> None:
    """A null description is not an error."""
    ana.make(title="Buy milk")

    assert ["Buy milk"] == ana.titles("?q=milk")


@pytest.mark.parametrize("q", ["x" * 200, "\U0001f331" * 200])
def test_q_takes_200_characters(ana: Person, q: str) -> None:
    """Characters are code points, however many bytes they take."""
    ana.make(title="Other"), ana.make(title=q)

    assert [q] == ana.titles(f"?q={quote(q)}")


def test_filters_narrow_together(ana: Person) -> None:
    """A task must match every filter."""
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
    """The order is by one column, in either direction."""
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
def test_default_limit_is_50(ana: Person, sort: str) -> None:
    """The default is the same for every order."""
    for _ in range(51):
        ana.make()

    assert 50 == len(ana.titles(f"?sort={sort}"))
    assert 51 == len(ana.titles(f"?sort={sort}&limit=100"))


MESSAGES = {
    "is_completed": "Give true or false.",
    "q": "Give one text of 1 to 200 characters.",
    "sort": "Give one of created_at, -created_at, updated_at, -updated_at, title, -title.",
    "limit": "Give one whole number from 1 to 100.",
    "cursor": "Give one cursor from a Link header of this list.",
}
UNKNOWN = "There is no such parameter."


BAD_QUERIES = [
    *((f"limit={limit}", "limit") for limit in "0 101 -1 %2B5 +5 1.0 1e1 1_0 01 0x1 ten %D9%A3 9999999999".split()),
    ("limit=", "limit"),
    ("limit=1" + "0" * 5000, "limit"),
    ("limit", "limit"),
    *((f"is_completed={value}", "is_completed") for value in ("", "True", "TRUE", "1", "0", "yes", "null")),
    ("q=", "q"),
    ("q=" + "x" * 201, "q"),
    ("q=" + "%00" * 201, "q"),
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
    ("limit=1&limit=2", "limit"),
    ("q=a&q=b", "q"),
    ("sort=title&limit=5&sort=title", "sort"),
    ("is_completed=true&is_completed=true", "is_completed"),
    ("cursor=x&cursor=x", "cursor"),
    ("page=2&page=3", "page"),
]


@SQLITE_ALONE
def test_bad_parameter_answers_400_and_its_name(ana: Person) -> None:
    """An unknown, repeated or malformed parameter is named, with one message."""
    for query, name in BAD_QUERIES:
        response = ana.call("GET", f"/api/tasks?{query}")

        message = MESSAGES.get(name, UNKNOWN)
        expected = {"error": f"{name}: {message}", "code": "VALIDATION_ERROR", "details": {name: [message]}}
        assert (response.status_code, response.json) == (400, expected), query


@SQLITE_ALONE
def test_error_names_the_first_parameter_of_the_schema(ana: Person) -> None:
    """All bad parameters stand in details. The order of the query does not count."""
    bad = ["is_completed=1", "q=", "sort=id", "limit=0", "cursor=x&cursor=x", "page=2"]
    orders = [order[start:] + order[:start] for order in (bad, bad[::-1]) for start in range(len(bad))]

    answers = [ana.call("GET", f"/api/tasks?{'&'.join(order)}") for order in orders]

    assert {answer.status_code for answer in answers} == {400}
    assert {answer.json["error"] for answer in answers} == {"is_completed: Give true or false."}
    expected = {name: [message] for name, message in (MESSAGES | {"page": UNKNOWN}).items()}
    assert [answer.json["details"] for answer in answers if answer.json["details"] != expected] == []


@SQLITE_ALONE
@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("page=2&limit=0&sort=id&q=", "q: Give one text of 1 to 200 characters."),
        ("page=2&limit=0&sort=id", f"sort: {MESSAGES['sort']}"),
        ("page=2&limit=0&is_completed=true", "limit: Give one whole number from 1 to 100."),
        ("page=2&cursor=x&cursor=y", "cursor: Give one cursor from a Link header of this list."),
        ("page=2&sort=title", "page: There is no such parameter."),
    ],
)
def test_valid_parameters_are_not_named(ana: Person, query: str, error: str) -> None:
    """The first bad parameter may stand after good ones."""
    assert ana.call("GET", f"/api/tasks?{query}").json["error"] == error
