"""Does a request take longer when the table has a thousand times as many tasks?"""

from collections import defaultdict
from statistics import median

from tqdm import tqdm

from benchmarks.data import CREATOR, OWNER, execute, fill, token
from benchmarks.load import CREATE, GET, REQUESTS, Client, Request, Run, run
from benchmarks.report import spread, table
from benchmarks.servers import TASKAPI, Service, folder, postgresql, service

SMALL = 10_000  # tasks
OWNED = 100_000  # tasks of one user, and never more than half
PAGES = 100
FIRST, LAST = "first page", "hundredth page"


def owned(tasks: int) -> int:
    """Return how many of so many tasks are OWNER's: enough for a hundred pages of 20."""
    return min(OWNED, tasks // 2)


def compare(tasks: int, rounds: int, seconds: int) -> str:
    """Return a table of what requests take at SMALL tasks and at so many."""
    with folder() as path, postgresql(path) as create_database:
        sizes = {SMALL: create_database("small"), tasks: create_database("large")}
        for size, url in sizes.items():
            fill(url, size, owned(size))
        with service(TASKAPI, sizes[SMALL], path) as small, service(TASKAPI, sizes[tasks], path) as large:
            services = {SMALL: small, tasks: large}
            runs = _measure(services, sizes, rounds, seconds)
    head = ["", *(f"p50 at {size:,} tasks, ms" for size in sizes), "ratio of medians", "ratios by round"]
    rows = []
    for endpoint in (FIRST, LAST, GET, CREATE):
        before, after = ([each.p50 / 1000 for each in runs[endpoint, size]] for size in sizes)
        ratios = [large / small for small, large in zip(before, after, strict=True)]
        ratio = f"{median(after) / median(before):.2f}"
        rows.append([endpoint, spread(before, ".1f"), spread(after, ".1f"), ratio, spread(ratios, ".2f")])
    return table(head, rows)


def _measure(
    services: dict[int, Service], urls: dict[int, str], rounds: int, seconds: int
) -> dict[tuple[str, int], list[Run]]:
    runs = defaultdict(list)
    requests = {size: _requests(each) for size, each in services.items()}
    with tqdm(total=(rounds + 1) * 8, unit="run") as bar:
        for number in range(rounds + 1):
            for endpoint in (FIRST, LAST, GET, CREATE):
                # Who goes first takes turns.
                for size in sorted(services, reverse=number % 2 == 1):
                    bar.set_description(f"{endpoint} at {size:,}")
                    # Created by somebody else, and taken away again, so that OWNER's pages stay as they are.
                    user = CREATOR if endpoint == CREATE else OWNER
                    request = requests[size][endpoint]
                    measured = run(services[size], request, seconds if number else 1, owned(size), token(user))
                    execute(urls[size], "DELETE FROM tasks WHERE user_id = %(user)s", user=CREATOR)
                    if number:  # the first is for warming up
                        runs[endpoint, size].append(measured)
                    bar.update()
    return runs


def _requests(each: Service) -> dict[str, Request]:
    """The requests, the hundredth page's cursor among them; one comes to it by the Link headers alone."""
    first = Request("GET", "/api/tasks?limit=20")
    page, client = first, Client(each)
    for _ in range(PAGES - 1):
        link = client.ask(page).link or ""
        page = Request("GET", link[1 : link.index(">")])
    client.connection.close()
    return {FIRST: first, LAST: page, GET: REQUESTS[GET], CREATE: REQUESTS[CREATE]}
