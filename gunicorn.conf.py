"""How gunicorn serves taskapi: `gunicorn wsgi:app` reads this file by itself. gunicorn's own options go first."""

import logging
import mmap
import os
import runpy
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from traceback import format_tb
from typing import Any

import gevent
from dotenv import load_dotenv
from gevent.server import StreamServer
from gevent.socket import socket
from gunicorn.glogging import Logger
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine
from gunicorn.util import close_graceful
from gunicorn.workers.ggevent import GeventWorker
from pythonjsonlogger.orjson import OrjsonFormatter

HERE = Path(__file__).parent

# Run by its path: an import would keep the code that a SIGHUP is to renew.
service = runpy.run_path(str(HERE / "taskapi" / "config.py"))

try:
    load_dotenv(HERE / ".env")  # the workers inherit the environment
except UnicodeDecodeError:
    raise service["SettingsError"](".env", "is not UTF-8 text") from None
settings = service["load"](os.environ)  # a wrong setting stops the master here, before it forks

# A platform gives PORT and routes to it from outside. Otherwise a proxy with TLS stands in front, on this machine.
bind = f"0.0.0.0:{settings['PORT']}" if settings["PORT"] else "127.0.0.1:8000"

# CPU is the limit: a worker per core, each with a pool of 10 database connections.
workers = settings["WEB_CONCURRENCY"] or os.cpu_count() or 1
# Clients at once per worker. Each costs a greenlet and a socket.
worker_connections = 1000
# Seconds without a sign of life until a worker is killed. A request that waits does not stop the signs.
timeout = 30
# Seconds of silence until a connection is closed. Above a load balancer's usual 60: if gunicorn closed an idle
# connection first, it could break a request that is on its way.
keepalive = 75
# Seconds from /readyz's first 503 to the end of accepting: a load balancer that asks every second knows by then.
DRAIN = 2
# Seconds that requests under way get at a stop. The longest takes 12.5: 6.5 for the database, 3 for each of two fetches
# of keys.
graceful_timeout = 15
# No client says where the service is mounted: neither SCRIPT_NAME nor PATH_INFO is taken from a header.
forwarder_headers = ""
# A local socket that takes commands.
control_socket_disable = True
# Bytes of a response that are sent at once, and of a body that are read at once.
BUFFER = 64 * 1024


class Connection(socket):
    """A client's connection that takes turns with the others, and sends head and body of a response at once.

    gevent itself switches only where there is nothing to read or no room to write: one client that sends without end
    would stop the worker.
    """

    unsent = b""

    def recv(self, size: int, *_: Any) -> bytes:
        """Let the others go first. gunicorn copies what it has read for each KiB of a body that it drains."""
        gevent.sleep(0)
        return super().recv(min(size, BUFFER))

    def sendall(self, data: Any, *_: Any) -> None:
        """Keep the data until there is enough or the request ends."""
        self.unsent += data
        if len(self.unsent) > BUFFER:
            self.flush()

    def flush(self) -> None:
        """Let the others go first, then send."""
        data, self.unsent = self.unsent, b""
        gevent.sleep(0)
        super().sendall(data)

    def close(self) -> None:
        """Close as gunicorn's other workers do: with data unread, a plain close would reset the response."""
        with suppress(OSError):
            self.flush()
        close_graceful(super())  # type: ignore[arg-type]


class DrainingServer(StreamServer):
    """A listener that accepts what the kernel has queued before it closes, which would reset those connections."""

    def close(self) -> None:
        """Accept one by one; each asks for the address of the listener while that is open."""
        self.stop_accepting()
        while not self.closed and (accepted := self.do_read()):
            self.do_handle(*accepted)
            gevent.sleep(0)
        super().close()


class Worker(GeventWorker):
    """A request that waits, for a slow client or the database, holds a greenlet and no other request."""

    def server_class(  # type: ignore[override]
        self, listener: socket, application: Any, spawn: Any, log: Any, handler_class: Any, environ: Any
    ) -> StreamServer:
        """Listen for plain HTTP: TLS belongs to the proxy."""
        server = DrainingServer(listener, handle=partial(self.handle, listener), spawn=spawn)
        server.max_accept = 1 if self.cfg.workers > 1 else server.max_accept  # workers take turns
        return server

    def handle(self, listener: Any, client: socket, addr: Any) -> None:
        """Serve a connection. GeventWorker's own handle would take away the limit for silence in a body."""
        connection = Connection(fileno=client.detach())
        connection.settimeout(self.cfg.keepalive)
        super(GeventWorker, self).handle(listener, connection, addr)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Answer a request."""
        try:
            return super().handle_request(listener_name, req, sock, addr)
        finally:
            sock.flush()


worker_class = Worker
sendfile = False  # it would overtake what Connection keeps


def pre_fork(server: Any, worker: Any) -> None:
    """Give a worker a byte that it shares with the master. Any worker class can read it, and it interrupts nothing."""
    worker.draining = mmap.mmap(-1, 1)


def post_worker_init(worker: Any) -> None:
    """Have /readyz read the byte. The bare function of the benchmarks has no config."""
    getattr(worker.wsgi, "config", {})["DRAINING"] = worker.draining


def when_ready(server: Any) -> None:
    """Wrap the master's stop, for which gunicorn has no hook: at SIGTERM /readyz fails for DRAIN seconds first."""
    stop = server.stop

    def drain_and_stop(graceful: bool = True) -> None:
        another_master = server.reexec_pid or server.master_pid  # by SIGUSR2; it keeps the listener
        if graceful and server.WORKERS and not another_master:
            for worker in server.WORKERS.values():
                worker.draining[0] = 1
            time.sleep(DRAIN)
        stop(graceful)

    server.stop = drain_and_stop


def on_starting(server: Any) -> None:
    """Make the folder where the workers' counts meet; the variable is prometheus_client's."""
    server.counts = tempfile.mkdtemp(prefix="taskapi-") if settings["METRICS"] else None
    if server.counts:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = server.counts


def child_exit(server: Any, worker: Any) -> None:
    """Count a worker's connections no longer."""
    if server.counts:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """Remove the folder."""
    if server.counts:
        shutil.rmtree(server.counts, ignore_errors=True)


def hide_request(record: logging.LogRecord) -> bool:
    """Replace a request's content, such as a query or a token, by the kind of the error or the limit."""
    error = sys.exc_info()[1]
    if record.msg.startswith("Invalid request from ip="):
        reason = error if isinstance(error, (LimitRequestHeaders, LimitRequestLine)) else type(error).__name__
        record.msg = f"{record.msg.partition(': ')[0]}: {reason}"
    elif record.msg.startswith("Error handling request"):
        record.msg, record.args, record.exc_info = f"Error handling request: {type(error).__name__}", (), None
        record.exc_text = "".join(format_tb(sys.exc_info()[2]))
    return True


class Log(Logger):
    """gunicorn's own lines, on stdout and in the form of the service's. No access log: each request has a line."""

    def setup(self, cfg: Any) -> None:
        """Set level, form and filter. At DEBUG gunicorn quotes what it could not read."""
        super().setup(cfg)
        self.error_log.setLevel(max(self.error_log.level, logging.INFO))
        for handler in self.error_log.handlers:
            handler.setFormatter(OrjsonFormatter(**service["LOG_LINE"]))
            handler.addFilter(hide_request)
            if cfg.errorlog == "-" and isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stdout)


logger_class = Log
loglevel = settings["LOG_LEVEL"]
