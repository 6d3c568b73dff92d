"""How gunicorn serves taskapi: `gunicorn wsgi:app` reads this file by itself."""

import logging
import os
import runpy
import signal
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from dotenv import load_dotenv
from gevent.server import StreamServer
from gevent.socket import socket
from gunicorn.workers.ggevent import GeventWorker

HERE = Path(__file__).parent

# The workers inherit the environment of this process.
load_dotenv(HERE / ".env")
# By path and not by import: that would keep the code that a SIGHUP is to renew, and have the workers inherit what
# gevent has yet to patch.
load = runpy.run_path(str(HERE / "taskapi" / "config.py"))["load"]
make_formatter = runpy.run_path(str(HERE / "taskapi" / "logformat.py"))["make_formatter"]

# A setting that can't be right stops the master, before any worker is forked.
settings = load(os.environ)

bind = "127.0.0.1:8000"  # a proxy with TLS stands in front

# Seconds of silence from a client until its connection is closed. A proxy's own keep-alive should be shorter.
keepalive = 75


class FairSocket(socket):
    """A client's connection that lets others go first: gevent's own only does so where there is nothing to read yet.

    One client who sends without end would hold up everybody, and after `timeout` have the worker killed.
    """

    def recv(self, *args: Any) -> bytes:
        """Return what has come; raise TimeoutError where gunicorn itself has no limit, which is in a body."""
        gevent.sleep(0)
        return super().recv(*args)

    def sendall(self, *args: Any) -> None:
        """Send all."""
        gevent.sleep(0)
        super().sendall(*args)

    def setblocking(self, flag: bool) -> None:
        """Block, but not for ever."""
        self.settimeout(keepalive + 5)


class Door(StreamServer):
    """Takes connections in, and before it closes those too that the kernel has taken already: it would reset them."""

    def close(self) -> None:
        """Take in the last ones, each as far as gunicorn's question for this door's address, and close."""
        self.stop_accepting()
        gevent.sleep(0)
        while not self.closed and (accepted := self.do_read()):
            self.do_handle(*accepted)
            gevent.sleep(0)
        super().close()


class FairWorker(GeventWorker):
    """One request that waits, for a slow client or for the database, holds a greenlet and nobody else."""

    def init_signals(self) -> None:
        """Take SIGUSR2, too."""
        super().init_signals()
        signal.signal(signal.SIGUSR2, self.drain)

    def drain(self, *_: Any) -> None:
        """Have /readyz say that the end is near; before it has loaded the service, a worker answers nobody."""
        with suppress(AttributeError):
            self.wsgi.config["DRAINING"] = True

    def server_class(self, listener: Any, spawn: Any, **others: Any) -> Door:
        """Make the door; several workers take turns at it."""
        door = Door(listener, handle=partial(self.handle, listener), spawn=spawn)
        door.max_accept = 1 if self.cfg.workers > 1 else door.max_accept
        return door

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection; one with TLS, which belongs to the proxy, as gevent has it."""
        super().handle(listener, client if self.cfg.is_ssl else FairSocket(fileno=client.detach()), addr)


def when_ready(server: Any) -> None:
    """Put a time of draining before the stop; gunicorn has no hook there. A reload, or a SIGINT, has none."""
    stop = server.stop

    def drain_and_stop(graceful: bool = True) -> None:
        if graceful and server.WORKERS:
            server.kill_workers(signal.SIGUSR2)
            time.sleep(DRAIN)
        stop(graceful)

    server.stop = drain_and_stop


def post_request(worker: Any, request: Any, environ: Any, response: Any) -> None:
    """Read away what the application left of a body, or the client might never see its 413; but not for ever."""
    with suppress(Exception), gevent.Timeout(2, False):  # seconds; a body badly chunked has no end
        for _ in range(MOST_LEFT // MAX_READ):
            if not request.body.read(MAX_READ):
                return
    request.force_close()


MAX_READ, MOST_LEFT = 64 * 1024, 16 * 1024 * 1024  # bytes, at once and in all

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where the workers' counts meet; prometheus_client's own name


def on_starting(server: Any) -> None:
    """Name a folder for the counts, unless it has a name; there, forget those of a master that was killed."""
    if settings["METRICS"] and not os.environ.get(METRICS_FOLDER):
        server.cfg.env_orig[METRICS_FOLDER] = os.environ[METRICS_FOLDER] = tempfile.mkdtemp(prefix="taskapi-")
    elif settings["METRICS"] and not server.master_pid:  # else another master counts there, too (SIGUSR2 to that one)
        forget_counts()


def pre_fork(server: Any, worker: Any) -> None:
    """Make that folder, if it is not there, or no longer: without it no worker could start."""
    if settings["METRICS"]:
        os.makedirs(os.environ[METRICS_FOLDER], mode=0o700, exist_ok=True)


def child_exit(server: Any, worker: Any) -> None:
    """Forget what a worker had in use."""
    if settings["METRICS"]:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the counts, unless another master counts there, too: made by SIGUSR2 to this one, or the maker of it."""
    if settings["METRICS"] and not server.reexec_pid and (server.master_pid or None) != os.getppid():
        forget_counts()
        with suppress(OSError):  # somebody else has something there
            os.rmdir(os.environ[METRICS_FOLDER])


def forget_counts() -> None:
    """Empty the folder."""
    for counts in Path(os.environ[METRICS_FOLDER]).glob("*.db"):
        counts.unlink()


def without_request(record: logging.LogRecord) -> bool:
    """Say that a request went wrong, but not what was in it: a query, or a token if its header was misspelt."""
    if record.msg.startswith("Invalid request from ip="):
        record.msg = record.msg.partition(": ")[0]
    elif record.msg.startswith("Error handling request"):
        record.msg, record.args = "Error handling request", ()
    return True


# gunicorn's own lines look like the service's. Its access log stays off, as each request has a line already.
logconfig_dict = {
    "root": {},
    "formatters": {"line": {"()": make_formatter, "readable": False}},
    "filters": {"without_request": {"()": lambda: without_request}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "line"}},
    "loggers": {
        "gunicorn.error": {
            # At DEBUG it quotes what it could not read, tokens too.
            "level": max(settings["LOG_LEVEL"], "INFO", key=logging.getLevelNamesMapping().__getitem__),
            "handlers": ["stdout"],
            "filters": ["without_request"],
            "propagate": False,
        }
    },
}

worker_class = FairWorker
# CPU is the limit, so a worker per core; each has a pool of 10 database connections.
workers = int(os.environ.get("WEB_CONCURRENCY") or 0) or os.cpu_count() or 1
# Clients at once per worker; each costs a greenlet and a socket, and slow or silent ones are let wait here.
worker_connections = 1000
# Browsers send some twenty headers, proxies add some ten.
limit_request_fields = 50
# No client says where we are mounted: neither SCRIPT_NAME nor PATH_INFO is taken from a header.
forwarder_headers = ""
# Seconds without a sign of life until a worker is killed; a request that waits does not stop the signs.
timeout = 30
# Seconds between /readyz's first 503 and the door's closing: whoever asks every second knows by then.
DRAIN = 2
# Seconds that requests under way get at a stop. None takes longer than 12.5: 4.5 for the database, where the last wait
# for a connection may add 2 (deadline.py, database.py), and 3 for each of two key sets (keys.py, jwks.py).
graceful_timeout = 15

# A local socket that takes commands, which nobody here needs.
control_socket_disable = True
