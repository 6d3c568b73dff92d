"""Does a request take longer when the table has a thousand times as many tasks?"""

from collections import defaultdict
from statistics import median

from benchmarks.load import CREATE, GET, REQUESTS, Client, Request, Run, ratios, run, spread, table
from benchmarks.postgres import execute
from benchmarks.service import CREATOR, OWNER, Options, Service, create, fill, postgresql, progress, service, taskapi
from benchmarks.service import token

SMALL = 10_000  # tasks
OWNED = 100_000  # tasks of one user, and never more than half
PAGES = 100
FIRST, LAST = "first page", "hundredth page"
ENDPOINTS = FIRST, LAST, GET, CREATE


def owned(tasks: int) -> int:
    """Return how many of so many tasks are OWNER's: enough for a hundred pages of 20."""
    return min(OWNED, tasks // 2)


def measure(options: Options) -> str:
    """Return a table of what requests take at SMALL tasks and at so many."""
    sizes = SMALL, options.tasks
    ours = taskapi(options.of)
    with postgresql() as (path, servers):
        urls = {size: create(servers, f"of_{size}", options.of) for size in sizes}
        for size, url in urls.items():
            fill(url, size, owned(size))
        with service(ours, urls[SMALL], path) as small, service(ours, urls[options.tasks], path) as large:
            runs = _load(dict(zip(sizes, (small, large))), urls, options)
    head = ["", *(f"p50 at {size:,} tasks, ms" for size in sizes), "ratio of medians", "ratios by round"]
    rows = []
    for endpoint in ENDPOINTS:
        before, after = ([each.p50 / 1000 for each in runs[endpoint, size]] for size in sizes)
        ratio = f"{median(after) / median(before):.2f}"
        by_round = ratios(runs[endpoint, options.tasks], runs[endpoint, SMALL], "p50")
        rows.append([endpoint, spread(before, ".1f"), spread(after, ".1f"), ratio, spread(by_round, ".2f")])
    return table(head, rows)


def _load(services: dict[int, Service], urls: dict[int, str], options: Options) -> dict[tuple[str, int], list[Run]]:
    runs = defaultdict(list)
    requests = {size: _requests(each) for size, each in services.items()}
    for number in range(options.rounds + 1):
        for endpoint in ENDPOINTS:
            # Who goes first takes turns.
            for size in sorted(services, reverse=number % 2 == 1):
                progress(f"round {number} of {options.rounds}: {endpoint} at {size:,}")
                # Another user creates, and those are deleted again, so that OWNER's pages stay as they are.
                user = CREATOR if endpoint == CREATE else OWNER
                duration = options.seconds if number else 1
                measured = run(services[size], requests[size][endpoint], duration, owned(size), [token(user)])
                execute(urls[size], "DELETE FROM tasks WHERE user_id = %(user)s", user=CREATOR)
                if number:  # the first is for warming up
                    runs[endpoint, size].append(measured)
    return runs


def _requests(each: Service) -> dict[str, Request]:
    """The requests, the hundredth page's cursor among them; one comes to it by the Link headers alone."""
    first = Request("GET", "/api/tasks?limit=20")
    page, client = first, Client(each, lambda: first)
    for _ in range(PAGES - 1):
        link = client.send(page._replace(token=token())).link or ""
        page = Request("GET", link[1 : link.index(">")])
    client.connection.close()
    return {FIRST: first, LAST: page, GET: REQUESTS[GET], CREATE: REQUESTS[CREATE]}
