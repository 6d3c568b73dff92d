"""Where a get's CPU goes, by cProfile in a worker."""

import pstats
import re
from io import StringIO
from pathlib import Path

import gunicorn

from benchmarks.load import GET, REQUESTS, run
from benchmarks.service import Options, create, fill, postgresql, service, taskapi, token, until

TASKS, TOP = 10_000, 20

# The checkout's own gunicorn.conf.py, and a profile around its hooks. Its clock is the process's CPU: waiting is free.
CONFIGURATION = """
import cProfile, runpy, time
own = runpy.run_path("gunicorn.conf.py")
globals().update(own)
profile = cProfile.Profile(time.process_time)

def post_worker_init(worker):
    own.get("post_worker_init", lambda worker: None)(worker)
    profile.enable()

def worker_exit(server, worker):
    profile.disable()
    profile.dump_stats({path!r})
    own.get("worker_exit", lambda server, worker: None)(server, worker)
"""


def measure(options: Options) -> str:
    """Return the functions that cost most in one worker, by their own time, per request."""
    with postgresql() as (path, servers):
        url = create(servers, "taskapi", options.of)
        fill(url, TASKS, TASKS)
        stats, configuration = path / "stats", path / "conf.py"
        configuration.write_text(CONFIGURATION.format(path=str(stats)))
        arguments = "-c", str(configuration)
        with service(taskapi(options.of), url, path, *arguments, WEB_CONCURRENCY="1") as served:
            until(served.is_ready)
            # One connection: where greenlets take turns, cProfile takes one for the other.
            measured = run(served, REQUESTS[GET], options.seconds, TASKS, [token()], connections=1)
        out = StringIO()
        pstats.Stats(str(stats), stream=out).sort_stats("tottime").print_stats(TOP)
    return f"```\n{measured.rate * options.seconds:,.0f} gets\n{_short(out.getvalue(), options.of)}\n```"


def _short(text: str, checkout: Path) -> str:
    """Return pstats' lines without the folders that packages lie in."""
    text = text[text.index("ncalls") :].rstrip()
    return re.sub(f"{re.escape(str(checkout))}/|{re.escape(str(Path(gunicorn.__file__).parent.parent))}/", "", text)
