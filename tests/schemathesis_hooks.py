"""What schemathesis can't know: where cursors and ETags come from, and that a line is trimmed before it is counted."""

import re
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.generation.meta import TestPhase, negated_parameters

pages: dict[str, dict[str, Any]] = {}  # by path, the query, cursor included, of the page that the last Link leads to
etags: dict[str, str] = {}  # by the task's id


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Keep what an answer gives."""
    if link := response.headers.get("link"):
        pages[case.path] = {**case.query, "cursor": re.findall("[?&]cursor=([A-Za-z0-9_-]+)", link[0])[0]}
    if case.path.startswith("/api/tasks") and response.status_code in (200, 201) and response.content:
        body = response.json()
        for task in body if isinstance(body, list) else [body]:
            etags[task["id"]] = f'"{task["updated_at"]}"'


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Send a real cursor or ETag for a made-up one, and for a text that is too long one that stays so."""
    broken = {name for name, _ in negated_parameters(case.meta)}
    if case.query.get("cursor") is not None and "cursor" not in broken:
        del case.query["cursor"]  # it alone would get the query refused
        if case.meta and case.meta.phase.name != TestPhase.COVERAGE and not broken and case.path in pages:
            case.query = dict(pages[case.path])
    etag = etags.get(str(case.path_parameters.get("id")).lower())
    if "If-Match" in case.headers and not broken and etag:
        case.headers["If-Match"] = etag
    body: Any = case.body
    for name, maximum in limits(case).items() if isinstance(body, dict) else ():
        if isinstance(body.get(name), str) and len(body[name]) > maximum:
            body[name] = body[name].strip().ljust(maximum + 1, "*")


def limits(case: Case[Any]) -> dict[str, int]:
    """Return how many characters each text of the body may have."""
    document: Any = case.operation.schema.raw_schema
    body = document["paths"][case.operation.path][case.operation.method.lower()]["requestBody"]
    component = body["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
    properties = document["components"]["schemas"][component]["properties"]
    return {name: one["maxLength"] for name, one in properties.items() if "maxLength" in one}
