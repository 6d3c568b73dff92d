"""Configure gunicorn. `gunicorn wsgi:app` loads this file; command-line options override it."""

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

# Run by path: an import would be cached, and SIGHUP would not reload it.
service = runpy.run_path(str(HERE / "taskapi" / "config.py"))

try:
    load_dotenv(HERE / ".env")  # the workers inherit the environment
except UnicodeDecodeError:
    raise service["SettingsError"](".env", "is not UTF-8 text") from None
settings = service["load"](os.environ)  # a wrong setting stops the master here, before it forks

# A platform sets PORT and routes requests to it. Without PORT, a TLS proxy on this machine forwards them.
bind = f"0.0.0.0:{settings['PORT']}" if settings["PORT"] else "127.0.0.1:8000"

# CPU is the limit: a worker per core, each with a pool of 10 database connections.
workers = settings["WEB_CONCURRENCY"] or os.cpu_count() or 1
# Clients at once per worker. Each costs a greenlet and a socket.
worker_connections = 1000
# Seconds without a heartbeat until a worker is killed. A waiting request does not stop the heartbeat.
timeout = 30
# Seconds of silence until a connection is closed. Above a load balancer's usual 60: if gunicorn closed an idle
# connection first, it could break a request that is on its way.
keepalive = 75
# Seconds between /readyz's first 503 and closing the listener. A load balancer that polls each second sees it.
DRAIN = 2
# Seconds for open requests to finish at a stop. The longest takes 12.5: 6.5 for the database, 3 for each of two key
# fetches.
graceful_timeout = 15
# Clients cannot set the mount path: SCRIPT_NAME and PATH_INFO are not read from headers.
forwarder_headers = ""
# No local command socket.
control_socket_disable = True
# Bytes of a response that are sent at once, and of a body that are read at once.
BUFFER = 64 * 1024


class Connection(socket):
    """A client's connection that yields to others, and sends a response's head and body together.

    gevent switches only when a read or a write would block: one client that sends endlessly would stop the worker.
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
    """A listener that accepts all queued connections before it closes: closing would reset them."""

    def close(self) -> None:
        """Accept one by one: each connection needs the listener's address, so keep it open."""
        self.stop_accepting()
        while not self.closed and (accepted := self.do_read()):
            self.do_handle(*accepted)
            gevent.sleep(0)
        super().close()


class Worker(GeventWorker):
    """A request that waits for a slow client or the database blocks only its own greenlet."""

    def server_class(  # type: ignore[override]
        self, listener: socket, application: Any, spawn: Any, log: Any, handler_class: Any, environ: Any
    ) -> StreamServer:
        """Listen for plain HTTP: TLS belongs to the proxy."""
        server = DrainingServer(listener, handle=partial(self.handle, listener), spawn=spawn)
        server.max_accept = 1 if self.cfg.workers > 1 else server.max_accept  # workers take turns
        return server

    def handle(self, listener: Any, client: socket, addr: Any) -> None:
        """Serve a connection. GeventWorker's own handle would remove the timeout for a silent body."""
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
sendfile = False  # it would bypass Connection's buffer


def pre_fork(server: Any, worker: Any) -> None:
    """Share a byte of memory with the worker. Any worker class can read it; unlike a signal, it interrupts nothing."""
    worker.draining = mmap.mmap(-1, 1)


def post_worker_init(worker: Any) -> None:
    """Pass the byte to /readyz. The benchmarks' bare WSGI function has no config."""
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
    """Create the folder for the workers' metrics. prometheus_client reads the variable."""
    server.counts = tempfile.mkdtemp(prefix="taskapi-") if settings["METRICS"] else None
    if server.counts:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = server.counts


def child_exit(server: Any, worker: Any) -> None:
    """Stop counting a dead worker's connections."""
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
    """Log gunicorn's lines to stdout in the service's format. No access log: the service logs each request."""

    def setup(self, cfg: Any) -> None:
        """Set level, form and filter. At DEBUG, gunicorn quotes malformed requests."""
        super().setup(cfg)
        self.error_log.setLevel(max(self.error_log.level, logging.INFO))
        for handler in self.error_log.handlers:
            handler.setFormatter(OrjsonFormatter(**service["LOG_LINE"]))
            handler.addFilter(hide_request)
            if cfg.errorlog == "-" and isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stdout)


logger_class = Log
loglevel = settings["LOG_LEVEL"]
