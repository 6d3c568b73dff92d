"""/metrics for Prometheus: off unless METRICS turns it on, and true for all worker processes of this gunicorn."""

import os
from time import perf_counter
from typing import Any

from flask import Blueprint, Flask, Response, g, request
from sqlalchemy import event

from taskapi.database import AUTOCOMMIT, db

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}  # whoever calls could make up any number more
# Seconds. A request takes a few milliseconds, and none longer than 10 seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def init_app(app: Flask) -> None:
    """Count and time requests, and add /metrics, where the setting says so."""
    if not app.config["METRICS"]:
        return
    # Not above: it decides as it is imported whether there are several processes (gunicorn.conf.py says so).
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    own = CollectorRegistry()
    answered = Counter("taskapi_requests", "Requests answered.", ["route", "method", "status"], registry=own)
    seconds = Histogram(
        "taskapi_request_seconds", "Time from request to answer.", ["route", "method"], registry=own, buckets=BUCKETS
    )
    retries = Counter("taskapi_statement_retries", "Statements run again on a fresh connection.", registry=own)
    in_use = Gauge(
        "taskapi_pool_connections_in_use", "Database connections in use.", registry=own, multiprocess_mode="livesum"
    )
    keys_loaded = Gauge(
        "taskapi_key_set_loaded_timestamp_seconds",
        "When the process with the oldest key set loaded it.",
        ["url"],  # so that a process without one says nothing
        registry=own,
        multiprocess_mode="livemin",
    )
    bp = Blueprint("metrics", __name__)

    @bp.get("/metrics")
    def metrics() -> Response:
        registry = own
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    @app.after_request
    def count(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        method = request.method if request.method in METHODS else "other"
        answered.labels(route, method, response.status_code).inc()
        seconds.labels(route, method).observe(perf_counter() - g.began)
        retries.inc(g.get("retries", 0))
        loaded = app.extensions["taskapi.keys"].loaded_at
        if loaded is not None:
            keys_loaded.labels(app.config["JWT_JWKS_URL"]).set(loaded)
        return response

    def taken(*_: Any) -> None:
        in_use.inc()

    def given_back(*_: Any) -> None:
        in_use.dec()

    app.register_blueprint(bp)
    with app.app_context():
        event.listen(db.engines[AUTOCOMMIT], "checkout", taken)
        event.listen(db.engines[AUTOCOMMIT], "checkin", given_back)
