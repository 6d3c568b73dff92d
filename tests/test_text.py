"""What a title and a description may be, on create and on update."""

import json
import sys
import unicodedata
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import SQLITE_ALONE
from tests.people import Person
from tests.test_fields import DESCRIPTION, METHODS, TITLE, assert_refused

TITLE_CHARACTERS = "Give a title of one line, without control characters."
DESCRIPTION_CHARACTERS = "Give a description without control characters."

CONTROLS = [char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char) == "Cc"]

SPACES = st.text(" \t\n\r\xa0\u2003\u2028\u3000", max_size=5)
LINE = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u202d\u202e")
EDGE = LINE.filter(lambda char: not char.isspace())
TITLES = st.builds("{}{}{}".format, EDGE, st.text(LINE, max_size=198), EDGE) | EDGE
DESCRIPTIONS = st.none() | st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\t\n\r"), max_size=2000
)


def assert_kept(person: Person, method: str, field: str, texts: list[tuple[str | None, str | None]]) -> None:
    """Fail unless each text that is sent in the field is answered and stored as the one beside it."""
    for sent, kept in texts:
        path = "/api/tasks" if method == "POST" else f"/api/tasks/{person.make()['id']}"

        response = person.call(method, path, json={"title": "Water the plants", field: sent})

        assert (response.status_code < 300, response.json[field]) == (True, kept), sent
        assert [getattr(row, field) for row in person.stored()] == [kept]
        person.call("DELETE", f"/api/tasks/{response.json['id']}")


@METHODS
def test_title_is_trimmed_and_else_kept(ana: Person, method: str) -> None:
    """There is no normalisation and no escaping; length is counted after the trim, in code points."""
    trimmed = [
        (f"{' ' * 300}x{' ' * 300}", "x"),
        ("\t\r\n \x85\xa0\u2003\u2028\u3000x y\u3000\u2028\u2003\xa0\x85 \n\r\t", "x y"),
    ]
    whole = [
        "x" * 200,
        "\U0001f331" * 200,
        "a \u2028 b",
        "\u200bx\u200b",
        "\u200b",
        "\ufeff",
        "\xad \u2060\u3000\u200d",
        "\U000e0041",
        "\u2066x\u2069\u202ay\u202c",
        "\U0001f469\u200d\U0001f680",
        "e\u0301 \u212b \ufb01",
        "<b>&amp;'\"\\;--%s{}",
    ]

    assert_kept(ana, method, "title", [*trimmed, *zip(whole, whole)])


@METHODS
def test_description_is_kept_byte_for_byte(ana: Person, method: str) -> None:
    """It is not even trimmed, and has up to 2,000 code points."""
    whole = [None, "", "x" * 2000, "\U0001f331" * 2000, " \ta\r\nb\n\n ", "\u202ee\u0301<i>\u200b\u2028", "\ufeff"]

    assert_kept(ana, method, "description", [*zip(whole, whole)])


BAD_TITLES: dict[str, list[Any]] = {
    TITLE: ["", " \t\n\u3000", "x" * 201, "\U0001f331" * 201, " x" * 101, "a\n" * 150, None, 5, True, ["x"], {"x": 1}],
    TITLE_CHARACTERS: ["a\u202eb", "\u202d1", "a\nb", "a\0b"],
}
BAD_DESCRIPTIONS: dict[str, list[Any]] = {
    DESCRIPTION: ["x" * 2001, "\U0001f331" * 2001, "\0" * 2001, 5, False, ["x"], {}],
    DESCRIPTION_CHARACTERS: ["a\0b"],
}


@SQLITE_ALONE
@METHODS
@pytest.mark.parametrize(("field", "bad"), [("title", BAD_TITLES), ("description", BAD_DESCRIPTIONS)])
def test_bad_text_answers_400(ana: Person, method: str, field: str, bad: dict[str, list[Any]]) -> None:
    """A title is one line of 1 to 200 code points; a description is text or null. Two broken rules get one message."""
    messages = {json.dumps(value): message for message, values in bad.items() for value in values}

    assert_refused(ana, method, field, messages)


@pytest.mark.parametrize(("field", "allowed"), [("title", []), ("description", ["\t", "\n", "\r"])])
@METHODS
def test_control_characters(ana: Person, method: str, field: str, allowed: list[str]) -> None:
    """Of all of category Cc, a title takes none, and a description takes tab, LF and CR."""
    path = "/api/tasks" if method == "POST" else f"/api/tasks/{ana.make()['id']}"
    bodies = {char: {"title": "Plants"} | {field: f"a{char}b"} for char in CONTROLS}

    taken = [char for char, body in bodies.items() if ana.call(method, path, json=body).status_code < 300]

    assert taken == allowed


@settings(max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=SPACES, title=TITLES, after=SPACES, description=DESCRIPTIONS)
def test_legal_text_comes_back_as_it_was_sent(
    app: Flask, before: str, title: str, after: str, description: str | None
) -> None:
    """Created, changed, read and listed, every legal text is the same."""
    writer = Person(app)
    text = {"title": title, "description": description}

    made = writer.make(title=f"{before}{title}{after}", description=description)
    path = f"/api/tasks/{made['id']}"
    changed = writer.call("PUT", path, json={"title": "-", "description": "-"})
    restored = writer.call("PATCH", path, json=text)

    assert (changed.status_code, restored.status_code) == (200, 200)
    for task in (made, restored.json, writer.call("GET", path).json, writer.call("GET").json[0]):
        assert text == {name: task[name] for name in text}
    assert [(title, description)] == [(row.title, row.description) for row in writer.stored()]
