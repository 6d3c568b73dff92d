"""python -m benchmarks, and what it measures."""

import argparse
import platform
import signal
import sys
from collections import defaultdict
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from benchmarks import faults, keys, memory, patroni, report, running, scale
from benchmarks.data import fill, token
from benchmarks.load import DELETE, GET, REQUESTS, Run, run
from benchmarks.round_trips import Observed, observe, proxy
from benchmarks.servers import COMMANDS, TASKAPI, WORKERS, folder, postgresql, service

TASKS = 10_000  # all of one user
WHAT = "compare scale faults pooler patroni memory keys running".split()
PACKAGES = "flask sqlalchemy psycopg2-binary gunicorn gevent fastapi sqlmodel uvicorn psycopg".split()


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure taskapi.")
    parser.add_argument("what", nargs="?", default="compare", choices=WHAT)
    parser.add_argument("--rounds", type=int, default=5, help="rounds, after one for warming up (5)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds of each run (5)")
    parser.add_argument("--tasks", type=int, default=10_000_000, help="scale: tasks in the large table (10,000,000)")
    parser.add_argument("--kills", type=int, default=500, help="faults, pooler: connections to kill (500)")
    parser.add_argument("--worker-kills", type=int, default=50, help="faults: workers to kill (50)")
    parser.add_argument("--rolls", type=int, default=10, help="faults: SIGHUPs that replace all workers (10)")
    parser.add_argument("--restarts", type=int, default=20, help="faults, pooler: restarts of the database (20)")
    parser.add_argument("--failovers", type=int, default=10, help="faults, patroni: failovers to a standby (10)")
    parser.add_argument("--png", type=Path, default=Path(__file__).with_name("chart.png"), help="where the chart goes")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it cleans up as Ctrl-C does
    print(f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in PACKAGES)};")
    if options.what == "faults":
        kinds = options.worker_kills, options.rolls, options.restarts, options.failovers
        print(faults.drill(options.kills, *kinds))
        return
    if options.what == "pooler":
        print(faults.drill_pooler(options.kills, options.restarts))
        return
    if options.what == "patroni":
        print(patroni.drill(options.failovers))
        return
    if options.what == "keys":
        print(keys.flood())
        return
    if options.what == "memory":
        print(memory.measure())
        return
    if options.what == "running":
        print(running.measure())
        return
    print(f"{WORKERS} workers; {options.rounds} rounds of {options.seconds} s: medians (least to most).\n", flush=True)
    if options.what == "scale":
        print(scale.compare(options.tasks, options.rounds, options.seconds))
    else:
        compare(options.rounds, options.seconds, options.png)


def compare(rounds: int, seconds: int, png: Path) -> None:
    """Compare the three services, interleaved."""
    with folder() as path, postgresql(path) as create_database:
        url = create_database("benchmarks")
        observed = _observe(url, path)
        runs = _measure(url, path, rounds, seconds)
    report.draw(runs, png)
    print(report.compare(runs, observed))


def _observe(url: str, path: Path) -> dict[str, dict[str, Observed]]:
    """Count round trips, and compare one answer of each endpoint with taskapi's."""
    observed = {}
    (path / "proxy").mkdir()
    with proxy(path / "proxy", path / "pg") as counter:
        for name in tqdm(COMMANDS, desc="Round trips", leave=False):
            fill(url, TASKS, TASKS)
            with service(name, url.replace(str(path / "pg"), str(path / "proxy")), path) as each:
                observed[name] = observe(each, counter)
    for name, endpoint in ((name, endpoint) for name in COMMANDS for endpoint in REQUESTS):
        ours, theirs = observed[TASKAPI][endpoint].answer, observed[name][endpoint].answer
        if ours != theirs:
            raise RuntimeError(f"{endpoint}: {TASKAPI} answers\n{ours}\nbut {name}\n{theirs}")
    return observed


def _measure(url: str, path: Path, rounds: int, seconds: int) -> report.Runs:
    runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
    with ExitStack() as stack:
        services = [stack.enter_context(service(name, url, path)) for name in COMMANDS]
        bar = stack.enter_context(tqdm(total=(rounds + 1) * len(services) * len(REQUESTS), unit="run"))
        for number in range(rounds + 1):
            services.append(services.pop(0))  # who goes first takes turns
            for endpoint, request in REQUESTS.items():
                for each in services:
                    bar.set_description(f"{endpoint}, {each.name}")
                    duration = seconds if number else 1
                    # Each task can be deleted once: twice as many as were read in that time will do.
                    rate = runs[GET, each.name][-1].rate if endpoint == DELETE else 0
                    tasks = max(TASKS, int(rate * duration * 2))
                    fill(url, tasks, tasks)
                    runs[endpoint, each.name].append(run(each, request, duration, tasks, token()))
                    bar.update()
    return {key: measured[1:] for key, measured in runs.items()}  # the first round was for warming up


if __name__ == "__main__":
    main()
