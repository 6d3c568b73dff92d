"""Can one user, slow clients or a frozen database take the service from the others?"""

import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import partial
from itertools import cycle
from pathlib import Path
from threading import Event, Thread

import psutil
import psycopg2

from benchmarks.load import CREATE, LIST, REQUESTS, Client, Request, answers, at_work, percentile, seen, spread, table
from benchmarks.postgres import Cluster, execute
from benchmarks.service import OWNER, Options, Service, create, fill, postgresql, progress, service, taskapi
from benchmarks.service import token, until

TASKS = 10_000
OTHERS, PACE = 8, 0.05  # seconds between two requests of one of them: 160 requests/s in all
UPDATES, SEARCHES, SLOW = 30, 10, 200  # of the attacker, at once
LONG = 100_000  # tasks of the one who searches, with 2,000 characters each
FROZEN = 10  # seconds

LONG_TASKS = """
    INSERT INTO tasks (user_id, id, title, description, is_completed, created_at, updated_at)
    SELECT %(owner)s, gen_random_uuid(), 'Task ' || n, repeat('Ask Ana whether anything is left to do. ', 50), false,
           now() - n * interval '1 s', now()
    FROM generate_series(1, %(tasks)s) n
"""

# A context in which an attack is made, by the clients that it gives, if any.
Attack = Callable[[], AbstractContextManager[list[Client]]]


def measure(options: Options) -> str:
    """Return a table of what the others of one worker see without and with each attack, and what a frozen one does."""
    with postgresql() as (path, servers):
        url = create(servers, "taskapi", options.of)
        fill(url, TASKS, TASKS // 2)
        execute(url, LONG_TASKS, owner=OWNER, tasks=options.count(LONG))
        execute(url, "VACUUM ANALYZE")
        # As docs/hardening.md has it: without it PostgreSQL goes on with a search that was given up.
        execute(url, "ALTER DATABASE taskapi SET client_connection_check_interval = '1s'")
        with service(taskapi(options.of), url, path, WEB_CONCURRENCY="1") as served:
            until(served.is_ready)
            attacks: dict[str, Attack] = {
                f"{UPDATES} updates of a row that another transaction holds": partial(_update, served, url),
                f"{SEARCHES} searches in {options.count(LONG):,} long tasks": partial(_search, served),
                f"{SLOW} clients that send a byte a second": partial(_drip, served),
            }
            rows = _rounds(served, attacks, options)
            frozen = _freeze(served, servers)
    head = ["at once", "others' p50, ms", "p99, ms", "p99, times without", "others got", "the attacker", "/readyz"]
    return table(head, rows) + "\n\n" + frozen


def _rounds(served: Service, attacks: dict[str, Attack], options: Options) -> list[list[str]]:
    """Measure the others without and with each attack, in turns."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    counted: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for number in range(options.rounds):
        for name, attack in attacks.items():
            for what, context in (("nothing", _nothing), (name, attack)):
                progress(f"round {number + 1} of {options.rounds}: {what}")
                others, monitor = _others(served), Client(served, lambda: Request("GET", "/readyz"), 0.25)
                with context() as attackers:
                    time.sleep(1)
                    with at_work([*others, monitor]):
                        time.sleep(options.seconds)
                values[what, "p50"].append(percentile(others, 50))
                values[what, "p99"].append(percentile(others, 99))
                values[what, "times"].append(values[what, "p99"][-1] / values["nothing", "p99"][-1])
                for who, clients in (("others", others), ("attacker", attackers), ("monitor", [monitor])):
                    counted[what, who] += seen(clients)
    return [
        [what, spread(values[what, "p50"], ".1f"), spread(values[what, "p99"], ".1f")]
        + [spread(values[what, "times"], ".2f")]
        + [answers(counted[what, who]) for who in ("others", "attacker", "monitor")]
        for what in ("nothing", *attacks)
    ]


def _nothing() -> nullcontext[list[Client]]:
    return nullcontext([])


def _others(served: Service) -> list[Client]:
    """Users, of those that are in the database, who list and create in turn."""
    tokens = [token(f"00000000-0000-0000-0000-{number:012x}") for number in range(OTHERS)]
    asked = [cycle([REQUESTS[name]._replace(token=each) for name in (LIST, CREATE)]) for each in tokens]
    return [Client(served, each.__next__, PACE) for each in asked]


@contextmanager
def _update(served: Service, url: str) -> Iterator[list[Client]]:
    """Updates, again and again, of a row that a transaction holds."""
    request = Request("PATCH", "/api/tasks/{id}", '{"is_completed": true}', token())
    clients = [Client(served, lambda: request) for _ in range(UPDATES)]
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM tasks WHERE id = '00000000-0000-4000-8000-000000000000' FOR UPDATE")
        with at_work(clients):
            yield clients


@contextmanager
def _search(served: Service) -> Iterator[list[Client]]:
    """Searches, again and again, for what is in no task."""
    request = Request("GET", "/api/tasks?q=xyzzy", token=token())
    clients = [Client(served, lambda: request) for _ in range(SEARCHES)]
    with at_work(clients):
        yield clients


@contextmanager
def _drip(served: Service) -> Iterator[list[Client]]:
    """Connections on which a body comes by the byte."""
    head = f"POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token()}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    sockets, stop = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(SLOW)], Event()

    def drip() -> None:
        for each in sockets:
            each.sendall(head.encode())
        while not stop.wait(1):
            for each in sockets:
                with suppress(OSError):
                    each.sendall(b" ")

    thread = Thread(target=drip)
    thread.start()
    try:
        yield []
    finally:
        stop.set()
        thread.join()
        for each in sockets:
            each.close()


def _freeze(served: Service, servers: Cluster) -> str:
    """Suspend all of PostgreSQL's processes for a while; return what is answered then, and how soon afterwards."""
    progress("frozen database")
    postmaster = psutil.Process(int(Path(servers.data("a"), "postmaster.pid").read_text().split()[0]))
    others, alive = _others(served), Client(served, lambda: Request("GET", "/healthz"), PACE)
    frozen = [postmaster, *postmaster.children()]
    try:
        for process in frozen:
            process.suspend()
        with at_work([*others, alive]):
            time.sleep(FROZEN)
    finally:
        for process in frozen:
            process.resume()
    began = time.monotonic()
    until(served.is_ready)
    back = time.monotonic() - began
    slowest = max(max(client.seconds) for client in others)
    return (
        f"A database frozen for {FROZEN} s: the others got {answers(seen(others))}, within {slowest:.1f} s; /healthz "
        f"{answers(alive.seen)}, p99 {percentile([alive], 99):.1f} ms; /readyz 200 within {back:.2f} s of the thaw."
    )
