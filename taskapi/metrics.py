"""Prometheus at /metrics, if METRICS is 1; the counts include all workers of one gunicorn."""

import os
from time import perf_counter

from flask import Blueprint, Flask, Response, g, request
from sqlalchemy import event

from taskapi.database.engine import AUTOCOMMIT
from taskapi.database.models import db
from taskapi.logs import known_method

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds


def init_app(app: Flask) -> None:
    """Count and time requests, and add /metrics, if the setting says so."""
    if not app.config["METRICS"]:
        return
    # Imported late: on import, prometheus_client reads a variable that gunicorn.conf.py sets.
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry, labels = CollectorRegistry(), ["route", "method"]
    answered = Counter("taskapi_requests", "Requests answered.", [*labels, "status"], registry=registry)
    timed = Histogram("taskapi_request_seconds", "From request to answer.", labels, registry=registry, buckets=BUCKETS)
    retries = Counter("taskapi_statement_retries", "Statements run again on a fresh connection.", registry=registry)
    name = "taskapi_pool_connections_in_use"
    in_use = Gauge(name, "Database connections in use.", registry=registry, multiprocess_mode="livesum")
    loaded = Gauge(
        "taskapi_key_set_loaded_timestamp_seconds",
        "When the oldest key set was loaded.",
        ["url"],  # a process without a key set then shows no series
        registry=registry,
        multiprocess_mode="livemin",
    )
    bp = Blueprint("metrics", __name__)

    @bp.get("/metrics")
    def metrics() -> Response:
        """The page that Prometheus reads."""
        shown = registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            shown = CollectorRegistry()
            MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
        return Response(generate_latest(shown), content_type=CONTENT_TYPE_LATEST)

    @app.after_request
    def count(response: Response) -> Response:
        """Count and time the request."""
        route, method = request.url_rule.rule if request.url_rule else "none", known_method(request.method)
        answered.labels(route, method, response.status_code).inc()
        timed.labels(route, method).observe(perf_counter() - g.began)
        retries.inc(g.get("retries", 0))
        loaded_at = app.extensions["taskapi.keys"].loaded_at
        if loaded_at is not None:
            loaded.labels(app.config["JWT_JWKS_URL"]).set(loaded_at)
        return response

    app.register_blueprint(bp)
    with app.app_context():
        event.listen(db.engines[AUTOCOMMIT], "checkout", lambda *_: in_use.inc())
        event.listen(db.engines[AUTOCOMMIT], "checkin", lambda *_: in_use.dec())
