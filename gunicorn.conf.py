"""How gunicorn serves taskapi: `gunicorn wsgi:app` reads this file by itself."""

import os
import runpy
from pathlib import Path

from dotenv import load_dotenv

HERE = Path(__file__).parent

# The workers inherit the environment of this process.
load_dotenv(HERE / ".env")
# A setting that can't be right stops the master, before any worker is forked. By path and not by import: that would
# bring in ssl before gevent patches it, and keep the code that a SIGHUP is to renew.
runpy.run_path(str(HERE / "taskapi" / "config.py"))["load"](os.environ)

bind = "127.0.0.1:8000"  # a proxy with TLS stands in front

# One request that waits, for a slow client or for the database, holds a greenlet and nobody else.
worker_class = "gevent"
# CPU is the limit, so a worker per core; each has a pool of 10 database connections.
workers = int(os.environ.get("WEB_CONCURRENCY") or os.cpu_count() or 1)
# Clients at once per worker; each costs a greenlet and a socket, and slow or silent ones are let wait here.
worker_connections = 1000
# Seconds. A proxy's own keep-alive should be shorter.
keepalive = 75
# Seconds without a sign of life until a worker is killed; a request that waits does not stop the signs.
timeout = 30
# Seconds that requests under way get at a stop. None takes longer than 10: 2 for a connection and 4.5 for the database
# (database.py), 3 for a key set (jwks.py).
graceful_timeout = 15

# A local socket that takes commands, which nobody here needs.
control_socket_disable = True
