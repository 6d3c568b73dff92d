"""How gunicorn serves taskapi: `gunicorn wsgi:app` reads this file by itself, and its own options go first."""

import logging
import mmap
import os
import re
import runpy
import shutil
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from dotenv import load_dotenv
from gevent.server import StreamServer
from gevent.socket import socket
from gunicorn.glogging import Logger
from gunicorn.util import close_graceful
from gunicorn.workers.ggevent import GeventWorker
from pythonjsonlogger.orjson import OrjsonFormatter

HERE = Path(__file__).parent
# Run by its path: an import would keep the code that a SIGHUP is to renew.
taskapi_config = runpy.run_path(str(HERE / "taskapi" / "config.py"))
SettingsError = taskapi_config["SettingsError"]

try:
    load_dotenv(HERE / ".env")  # the workers inherit the environment
except UnicodeDecodeError:
    raise SettingsError(".env", "is not UTF-8 text") from None
settings = taskapi_config["load"](os.environ)  # a wrong setting stops the master here, before it forks


def number(name: str, most: int) -> int:
    """Return a whole number from the environment, 0 where it is not given; raise SettingsError."""
    value = os.environ.get(name, "").strip()
    if value and not (re.fullmatch("[0-9]{1,5}", value) and 1 <= int(value) <= most):
        raise SettingsError(name, f"must be a whole number from 1 to {most}")
    return int(value or 0)


# A platform gives PORT and routes to it from outside; else a proxy with TLS stands in front, on this machine.
port = number("PORT", most=65535)
bind = f"0.0.0.0:{port}" if port else "127.0.0.1:8000"

# CPU is the limit: a worker per core, each with a pool of 10 database connections.
workers = number("WEB_CONCURRENCY", most=1000) or os.cpu_count() or 1
# Clients at once per worker. Each costs a greenlet and a socket.
worker_connections = 1000
# Seconds without a sign of life until a worker is killed. A request that waits does not stop the signs.
timeout = 30
# Seconds of silence from a client until its connection is closed. More than a load balancer's 60, so that the balancer
# closes an idle connection and not gunicorn, which would break a request that is on its way.
keepalive = 75
# Seconds from /readyz's first 503 to the closing of the listener: a balancer that asks every second knows by then.
DRAIN = 2
# Seconds that requests under way get at a stop. The longest takes 12.5: 6.5 for the database, 3 for each of two key sets.
graceful_timeout = 15

# The service needs neither a client's address nor its scheme, and no client says where it is mounted: with no header to
# believe there is no peer to check, which would take 3 % of a request.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
forwarded_allow_ips = "*"
# A local socket that takes commands.
control_socket_disable = True
# A response is written to a buffer, which sendfile would overtake.
sendfile = False
MAX_UNSENT = 64 * 1024  # bytes
MAX_DRAIN = 16 * 1024 * 1024  # bytes of a body that the service did not read; a client gets 2 seconds to send them


class Connection(socket):
    """A client's connection that takes turns with the others and sends a response at once.

    gevent switches only where there is nothing to read or no room to write: a client that sends requests or chunks
    without end would stop the worker. gunicorn sends head and body one by one, which takes 8 % of a request.
    """

    unsent = b""

    def recv(self, *args: Any) -> bytes:
        """Let the others go first; raise TimeoutError after `keepalive` seconds of silence."""
        gevent.sleep(0)
        return super().recv(*args)

    def sendall(self, data: bytes, *_: Any) -> None:
        """Buffer the data; send what is more than MAX_UNSENT."""
        self.unsent += data
        if len(self.unsent) > MAX_UNSENT:
            self.flush()

    def flush(self) -> None:
        """Let the others go first, then send the buffered data."""
        data, self.unsent = self.unsent, b""
        if data:
            gevent.sleep(0)
            super().sendall(data)

    def close(self) -> None:
        """Send the buffered data and close as gunicorn's other workers do: unread data would reset the connection."""
        with suppress(OSError):
            self.flush()
        close_graceful(super(), max_drain=MAX_DRAIN)


class DrainingServer(StreamServer):
    """A listener that accepts what the kernel has queued before it closes, which would reset those connections."""

    def close(self) -> None:
        """Let each accepted connection begin, as it asks for the listener's address, and close."""
        self.stop_accepting()
        while not self.closed and (accepted := self.do_read()):
            self.do_handle(*accepted)
            gevent.sleep(0)
        super().close()


class Worker(GeventWorker):
    """A request that waits, for a slow client or the database, holds a greenlet and no other request."""

    def server_class(
        self, listener: Any, application: Any, spawn: Any, log: Any, handler_class: Any, environ: Any
    ) -> DrainingServer:
        """Serve plain HTTP; TLS belongs to the proxy."""
        server = DrainingServer(listener, handle=partial(self.handle, listener), spawn=spawn)
        server.max_accept = 1 if self.cfg.workers > 1 else server.max_accept  # several workers take turns
        return server

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection, with a limit for silence also in a body, where gunicorn has none."""
        connection = Connection(fileno=client.detach())
        connection.settimeout(self.cfg.keepalive)
        super(GeventWorker, self).handle(listener, connection, addr)  # GeventWorker's would remove the limit

    def handle_request(self, listener_name: Any, request: Any, client: Any, addr: Any) -> Any:
        """Answer one request."""
        try:
            return super().handle_request(listener_name, request, client, addr)
        finally:
            client.flush()


worker_class = Worker


def pre_fork(server: Any, worker: Any) -> None:
    """Give each worker a byte that it shares with the master: any worker class can read it, and it interrupts nothing."""
    worker.draining = mmap.mmap(-1, 1)


def post_worker_init(worker: Any) -> None:
    """Have /readyz read it."""
    worker.wsgi.config["DRAINING"] = worker.draining


def when_ready(server: Any) -> None:
    """Wrap the master's stop, for which gunicorn has no hook: /readyz fails for DRAIN seconds, while all is served."""
    stop = server.stop

    def drain_and_stop(graceful: bool = True) -> None:
        another = server.reexec_pid or server.master_pid  # a master made by SIGUSR2, which keeps the listener
        if graceful and server.WORKERS and not another:
            for worker in server.WORKERS.values():
                worker.draining[0] = 1
            time.sleep(DRAIN)
        stop(graceful)

    server.stop = drain_and_stop


COUNTS = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's name for the folder where the workers' counts meet


def on_starting(server: Any) -> None:
    """Make the folder."""
    if settings["METRICS"]:
        os.environ[COUNTS] = tempfile.mkdtemp(prefix="taskapi-")


def child_exit(server: Any, worker: Any) -> None:
    """Remove what a worker had in use."""
    if settings["METRICS"]:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the folder."""
    if settings["METRICS"]:
        shutil.rmtree(os.environ[COUNTS], ignore_errors=True)


def hide_request(record: logging.LogRecord) -> bool:
    """Keep a request's content out of the log, a query or a token; the name of the error, and of a limit, stay."""
    error = sys.exc_info()[1]
    reason = type(error).__name__
    if record.msg.startswith("Invalid request from ip="):
        reason += f" ({error})" if reason.startswith("Limit") else ""
        record.msg = f"{record.msg.partition(': ')[0]}: {reason}"
    elif record.msg.startswith("Error handling request") and error:
        record.msg, record.args, record.exc_info = f"Error handling request: {reason}", (), None
        record.exc_text = "".join(traceback.format_tb(error.__traceback__))
    return True


class Log(Logger):
    """gunicorn's own lines on stdout, in the form of the service's. Each request has a line already, so no access log."""

    def setup(self, cfg: Any) -> None:
        """Set level, form and filter; DEBUG would quote what could not be read."""
        super().setup(cfg)
        self.error_log.setLevel(max(self.error_log.level, logging.INFO))
        for handler in self.error_log.handlers:
            handler.setFormatter(OrjsonFormatter(**taskapi_config["LOG_LINE"]))
            handler.addFilter(hide_request)
            if cfg.errorlog == "-" and isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stdout)


logger_class = Log
loglevel = settings["LOG_LEVEL"].lower()
