"""taskapi beside a FastAPI service and the least that Python could do, or beside another checkout of itself."""

import re
import select
import socket
import socketserver
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from threading import Thread
from typing import NamedTuple
from uuid import uuid4

from benchmarks.load import DELETE, GET, LIST, REQUESTS, Client, Run, ratios, run, spread, table
from benchmarks.postgres import Cluster
from benchmarks.service import Contender, Options, Service, commit, create, fill, peers, postgresql, progress, service
from benchmarks.service import taskapi, token

TASKS = 10_000  # all of one user
TOKENS = 100  # of that user, in turn
CHART = Path(__file__).with_name("chart.png")

WARM_UP = 200  # requests until connections are open and statements prepared; psycopg 3 prepares at the sixth
COUNTED = 100  # requests
QUIET = 0.2  # seconds; FastAPI may end its transaction after it has answered
SOCKET = ".s.PGSQL.5432"

# What differs from one run to the next; its form does not.
ID = re.compile(rb'"id":"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"')
TIME = re.compile(rb'_at":"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"')

# Per endpoint and service, a run per round.
Runs = dict[tuple[str, str], list[Run]]


class Observed(NamedTuple):
    """Round trips per request, and the status and body of one."""

    round_trips: float
    answer: tuple[int, bytes]


def measure(options: Options) -> str:
    """Measure all endpoints of all services, interleaved; return the tables."""
    ours = taskapi(options.of)
    others = [taskapi(options.against, f"taskapi at {commit(options.against)}")] if options.against else peers()
    contenders = [ours, *others]
    with postgresql() as (path, servers):
        urls = {each.name: create(servers, f"of_{n}", each.folder) for n, each in enumerate(contenders)}
        observed = _observe(contenders, urls, path, servers)
        runs = _load(contenders, urls, path, options)
    names = [each.name for each in contenders]
    if options.write and not options.against:
        _draw(runs, names)
    return _tables(runs, observed, names)


def _observe(
    contenders: Sequence[Contender], urls: dict[str, str], path: Path, servers: Cluster
) -> dict[str, dict[str, Observed]]:
    """Count round trips, and compare one answer of each endpoint with taskapi's."""
    observed = {}
    with proxy(path / "proxy", servers.socket("a")) as counter:
        for each in contenders:
            progress(f"round trips of {each.name}")
            fill(urls[each.name], TASKS, TASKS)
            through = urls[each.name].replace(servers.socket("a"), str(path / "proxy"))
            with service(each, through, path) as served:
                observed[each.name] = _ask_each(served, counter)
    first, *others = observed
    for name, endpoint in ((name, endpoint) for name in others for endpoint in REQUESTS):
        ours, theirs = observed[first][endpoint].answer, observed[name][endpoint].answer
        if ours != theirs:
            raise RuntimeError(f"{endpoint}: {first} answers\n{ours}\nbut {name}\n{theirs}")
    return observed


def _load(contenders: Sequence[Contender], urls: dict[str, str], path: Path, options: Options) -> Runs:
    runs: Runs = defaultdict(list)
    tokens = [token(jti=str(uuid4())) for _ in range(TOKENS)]
    with ExitStack() as stack:
        services = [stack.enter_context(service(each, urls[each.name], path)) for each in contenders]
        for number in range(options.rounds + 1):
            services.append(services.pop(0))  # who goes first takes turns
            for endpoint, request in REQUESTS.items():
                for each in services:
                    progress(f"round {number} of {options.rounds}: {endpoint}, {each.name}")
                    duration = options.seconds if number else 1
                    # Each task can be deleted once: twice as many as were read in that time will do.
                    rate = runs[GET, each.name][-1].rate if endpoint == DELETE else 0
                    tasks = max(TASKS, int(rate * duration * 2))
                    fill(urls[each.name], tasks, tasks)
                    runs[endpoint, each.name].append(run(each, request, duration, tasks, tokens))
    return {key: measured[1:] for key, measured in runs.items()}  # the first round was for warming up


def _tables(runs: Runs, observed: dict[str, dict[str, Observed]], names: Sequence[str]) -> str:
    """Return what was measured, and the ratios; each ratio is that of one round."""
    measured = [
        [
            endpoint,
            name,
            spread([run.rate for run in runs[endpoint, name]]),
            spread([run.cpu for run in runs[endpoint, name]]),
            f"{median(run.p50 for run in runs[endpoint, name]) / 1000:.1f}",
            f"{median(run.p99 for run in runs[endpoint, name]) / 1000:.1f}",
            f"{observed[name][endpoint].round_trips:g}",
        ]
        for endpoint in REQUESTS
        for name in names
    ]
    first, *others = names
    compared = [
        [endpoint]
        + [
            spread(ratios(runs[endpoint, first], runs[endpoint, other], value), ".2f")
            for other in others
            for value in ("rate", "cpu")
        ]
        for endpoint in REQUESTS
    ]
    head = ["", "service", "requests/s", "CPU per request, µs", "p50, ms", "p99, ms", "round trips"]
    heads = [f"{what}, of {other}'s" for other in others for what in ("requests/s", "CPU per request")]
    return table(head, measured) + "\n\n" + table([f"{first}'s", *heads], compared)


def _draw(runs: Runs, names: Sequence[str]) -> None:
    """Write the chart: medians as bars, the least and the most as whiskers."""
    import matplotlib

    matplotlib.use("Agg")  # no display needed
    from matplotlib import pyplot

    figure, (rates, cpus) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for axes, title, value in (rates, "Requests per second", "rate"), (cpus, "Server CPU per request, µs", "cpu"):
        for index, name in enumerate(names):
            values = [[getattr(run, value) for run in runs[endpoint, name]] for endpoint in REQUESTS]
            middle = [median(each) for each in values]
            whiskers = [
                [each - min(all_) for each, all_ in zip(middle, values)],
                [max(all_) - each for each, all_ in zip(middle, values)],
            ]
            places = [place + (index - 1) * 0.27 for place in range(len(REQUESTS))]
            axes.bar(places, middle, 0.25, yerr=whiskers, capsize=3, label=name)
        axes.set_title(title)
        axes.set_xticks(range(len(REQUESTS)), list(REQUESTS))
        axes.spines[["top", "right"]].set_visible(False)
    rates.legend(frameon=False)
    figure.savefig(CHART, dpi=150)
    pyplot.close(figure)


class Proxy(socketserver.ThreadingUnixStreamServer):
    """Passes bytes on between a service and PostgreSQL, and counts flights: all that is sent before the next answer."""

    daemon_threads = True
    flights = 0  # for requests one after another alone: threads may lose counts

    def __init__(self, path: Path, upstream: str) -> None:
        super().__init__(str(path / SOCKET), _Connection)
        self.upstream = f"{upstream}/{SOCKET}"


class _Connection(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        service: socket.socket = self.request
        answered = True
        with socket.socket(socket.AF_UNIX) as postgresql:
            postgresql.connect(self.server.upstream)
            while True:
                for end in select.select([service, postgresql], [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    if end is service:
                        self.server.flights += answered
                    answered = end is postgresql
                    (service if answered else postgresql).sendall(data)


@contextmanager
def proxy(path: Path, upstream: str) -> Iterator[Proxy]:
    """A proxy with its socket in path, before the PostgreSQL whose socket is in upstream."""
    path.mkdir()
    with Proxy(path, upstream) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def _ask_each(service: Service, counter: Proxy) -> dict[str, Observed]:
    """Ask each endpoint, one request after another; OWNER's tasks have to be as filled."""
    client = Client(service, lambda: REQUESTS[LIST])
    observed = {}
    for endpoint, request in REQUESTS.items():
        request = request._replace(token=token())
        answer = client.send(request)
        for number in range(1, WARM_UP):
            client.send(request, number)
        time.sleep(QUIET)
        before = counter.flights
        for number in range(WARM_UP, WARM_UP + COUNTED):
            if client.send(request, number).status not in (200, 201):
                raise RuntimeError(f"{service.name} fails at {endpoint}")
        time.sleep(QUIET)
        body = answer.body
        if request.method != "GET":
            body = ID.sub(b'"id":ID', TIME.sub(b'_at":TIME', body))
        observed[endpoint] = Observed((counter.flights - before) / COUNTED, (answer.status, body))
    client.connection.close()
    return observed
