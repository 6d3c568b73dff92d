"""What schemathesis can't know: where cursors and ETags come from, and that a title is trimmed before it is counted."""

import re
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.generation.meta import TestPhase, negated_parameters

MAX_TITLE = 200  # characters

page: dict[str, Any] = {}  # the query, cursor included, of the page that the last Link leads to
etags: dict[str, str] = {}  # by the task's id


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Keep what an answer gives."""
    if link := response.headers.get("link"):
        page.clear()
        page.update(case.query, cursor=re.findall("[?&]cursor=([A-Za-z0-9_-]+)", link[0])[0])
    if case.path.startswith("/api/tasks") and response.status_code in (200, 201) and response.content:
        body = response.json()
        for task in body if isinstance(body, list) else [body]:
            etags[task["id"]] = f'"{task["updated_at"]}"'


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Send a real cursor or ETag for a made-up one, and for a title that is too long one that stays so."""
    broken = {name for name, _ in negated_parameters(case.meta)}
    if case.query.get("cursor") is not None and "cursor" not in broken:
        del case.query["cursor"]  # else it alone would have the query refused, whatever the rest
        if case.meta and case.meta.phase.name != TestPhase.COVERAGE and not broken and page:
            case.query = dict(page)
    etag = etags.get(str(case.path_parameters.get("id")).lower())
    if "If-Match" in case.headers and not broken and etag:
        case.headers["If-Match"] = etag
    body: Any = case.body
    title = body.get("title") if isinstance(body, dict) else None
    if isinstance(title, str) and len(title) > MAX_TITLE:
        body["title"] = title.strip().ljust(MAX_TITLE + 1, "*")
