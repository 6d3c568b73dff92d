"""python -m benchmarks: what it measures, and where it writes that down."""

import argparse
import os
import platform
import re
import signal
import sys
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks import compare, failover, fairness, faults, profile, running, scale, tokens
from benchmarks.service import ROOT, WORKERS, Options, commit, has_own_environment, progress

README = Path(__file__).with_name("README.md")
PACKAGES = "flask sqlalchemy psycopg2-binary gunicorn gevent fastapi sqlmodel uvicorn psycopg".split()
BENCHMARKS: dict[str, Callable[[Options], str]] = {
    "compare": compare.measure,
    "scale": scale.measure,
    "tokens": tokens.measure,
    "keys": tokens.flood,
    "fairness": fairness.measure,
    "faults": faults.drill,
    "pooler": faults.drill_pooler,
    "asleep": faults.drill_asleep,
    "running": running.measure,
    "memory": running.memory,
}
# What needs more of the machine than a loopback, or is no measurement of all.
APART = {"patroni": failover.patroni, "lost_machine": failover.lost_machine, "profile": profile.measure}


def main() -> None:
    """Measure what the command line asks for, print it, and put it into the README if that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure taskapi.")
    parser.add_argument("what", nargs="?", default="compare", choices=["all", *BENCHMARKS, *APART])
    parser.add_argument("--of", type=Path, default=ROOT, help="the checkout to measure (this one)")
    parser.add_argument("--against", type=Path, help="compare: another checkout, in place of the peers")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, after one for warming up (5)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds of each run (5)")
    parser.add_argument("--tasks", type=int, default=10_000_000, help="scale: tasks in the large table (10,000,000)")
    parser.add_argument("--share", type=float, default=1, help="of faults and requests that are counted (1: all)")
    parser.add_argument("--write", action="store_true", help="write into benchmarks/README.md, and the chart")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it cleans up as Ctrl-C does
    against = given.against and given.against.resolve()
    measures = given.rounds, given.seconds, given.tasks, given.share
    options = Options(given.of.resolve(), against, *measures, given.write)
    runs = [(name, options) for name in ([*BENCHMARKS] if given.what == "all" else [given.what])]
    if given.what == "all":
        runs[0] = ("compare", options._replace(against=None))
        runs[1:1] = [("compare", options)] if against else []
    for name, each in runs:
        title = "against" if each.against and name == "compare" else name
        text = f"{_provenance(title, each)}\n\n{(BENCHMARKS | APART)[name](each)}\n"
        progress("")
        print(text, flush=True)
        if given.write and name != "profile":
            write(title, text)


def _provenance(title: str, options: Options) -> str:
    """Return when, where and of what, in one line."""
    at = f"{date.today():%-d %B %Y}, commit {commit(options.of)}, {os.cpu_count()} cores, {WORKERS} workers"
    at += f", Python {platform.python_version()}"
    if title in ("compare", "against", "scale", "tokens"):
        at += f"; {options.rounds} rounds of {options.seconds} s: medians (least to most)"
    if title == "against" and options.against:
        own = "a .venv of its own" if has_own_environment(options.against) else "the same environment"
        at += f"; the other checkout in {own}"
    if title == "compare":
        at += "; " + ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return at + "."


def write(title: str, text: str) -> None:
    """Replace what README.md has between the markers of a title."""
    begin, end = f"<!-- {title} -->\n", f"<!-- /{title} -->"
    readme, count = re.subn(f"({begin}).*?({end})", lambda match: begin + text + end, README.read_text(), flags=re.S)
    if count != 1:
        raise RuntimeError(f"README.md has no place for {title}")
    README.write_text(readme)


if __name__ == "__main__":
    main()
