"""GET /api/tasks/{id} and its ETag."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import SQLITE_ALONE
from tests.people import Person

NOT_FOUND = {"error": "There is nothing here.", "code": "NOT_FOUND"}
MALFORMED_IDS = [
    "1",
    "0f8fad5bd9cb469fa16570867728950e",
    "%7B0f8fad5b-d9cb-469f-a165-70867728950e%7D",
    "0f8fad5b-d9cb-469f-a165-70867728950e%0A",
    "0f8fad5b-d9cb-469f-a165-7086772895%D9%A0e",
    "%00",
    "%FF",
]


def the_path_and_etag(task: dict[str, Any]) -> tuple[str, str]:
    """Return where a task is and the ETag of its version."""
    return f"/api/tasks/{task['id']}", f'"{task["updated_at"]}"'


@pytest.mark.parametrize("form", [str.lower, str.upper])
def test_it_works(ana: Person, form: Callable[[str], str]) -> None:
    """The answer is the task as it was on create; the id in the path may be in either case."""
    task = ana.make()

    response = ana.call("GET", f"/api/tasks/{form(task['id'])}")

    assert (response.status_code, response.json) == (200, task)
    assert list(response.json) == list(task)
    assert response.headers["ETag"] == f'"{task["updated_at"]}"'


def test_unknown_or_malformed_id_answers_404(ana: Person) -> None:
    """A malformed id is just one that does not exist."""
    ana.make()
    paths = [f"/api/tasks/{task_id}" for task_id in (uuid4(), *MALFORMED_IDS)]

    answers = {path: ana.call("GET", path) for path in paths}

    assert {path: (404, NOT_FOUND) for path in paths} == {
        path: (answer.status_code, answer.json) for path, answer in answers.items()
    }
    assert not any("ETag" in answer.headers for answer in answers.values())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_matching_if_none_match_answers_304(ana: Person, method: str) -> None:
    """A client that has this version gets no second copy; the comparison is weak (RFC 9110 section 13.1.2)."""
    path, etag = the_path_and_etag(ana.make())
    headers = ["{}", "W/{}", '"other", {}', '{},"other"', ' \t{} ,W/"other"', 'W/"other",W/{}', "*", " * "]

    answers = [ana.call(method, path, headers={"If-None-Match": header.format(etag)}) for header in headers]

    assert {(304, b"", etag)} == {(answer.status_code, answer.data, answer.headers["ETag"]) for answer in answers}
    assert {"private, no-cache"} == {answer.headers["Cache-Control"] for answer in answers}
    assert not any("Content-Type" in answer.headers for answer in answers)


@SQLITE_ALONE
def test_other_if_none_match_answers_200(ana: Person) -> None:
    """A client with another version, or with a malformed tag, gets the task."""
    task = ana.make()
    path, etag = the_path_and_etag(task)
    for header in ("", '""', '"other"', '"{}', "w/{}", "W/*", '"*"', '"1", "2"', ",", "{0} {0}", "é", "X*X", "\xa0*"):
        response = ana.call("GET", path, headers={"If-None-Match": header.format(etag)})

        assert (response.status_code, response.json) == (200, task), header


def test_several_if_none_match_headers_are_one_list(ana: Person) -> None:
    """RFC 9110 section 5.3."""
    path, etag = the_path_and_etag(ana.make())

    response = ana.app.test_client().get(
        path, headers=[*ana.headers.items(), ("If-None-Match", '"other"'), ("If-None-Match", etag)]
    )

    assert response.status_code == 304


def test_old_version_answers_200_after_a_change(ana: Person) -> None:
    """The ETag changes with the task."""
    path, etag = the_path_and_etag(ana.make())
    changed = ana.call("PATCH", path, json={"is_completed": True})

    response = ana.call("GET", path, headers={"If-None-Match": etag})

    assert (response.status_code, response.json) == (200, changed.json)
    assert response.headers["ETag"] == changed.headers["ETag"] == f'"{changed.json["updated_at"]}"'


def test_if_none_match_of_a_missing_task_answers_404(ana: Person) -> None:
    """A missing task has no version."""
    response = ana.call("GET", f"/api/tasks/{uuid4()}", headers={"If-None-Match": "*"})

    assert (response.status_code, response.json) == (404, NOT_FOUND)
