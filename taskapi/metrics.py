"""/metrics for Prometheus: off unless METRICS turns it on, and true for all worker processes of this gunicorn."""

import os
from time import perf_counter

from flask import Blueprint, Flask, Response, g, request
from sqlalchemy import event

from taskapi.database import AUTOCOMMIT
from taskapi.logs import known_method
from taskapi.models import db

# Seconds. A request takes a few milliseconds, and hardly any longer than 10 seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """What this process counts, or where several count together all of them."""

    def __init__(self, app: Flask) -> None:
        # Not above: it decides as it is imported whether there are several processes (gunicorn.conf.py says so).
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._app = app
        self._registry = registry = CollectorRegistry()
        labels = ["route", "method"]
        self._answered = Counter("taskapi_requests", "Requests answered.", [*labels, "status"], registry=registry)
        self._seconds = Histogram(
            "taskapi_request_seconds", "From request to answer.", labels, registry=registry, buckets=BUCKETS
        )
        self._retries = Counter(
            "taskapi_statement_retries", "Statements run again on a fresh connection.", registry=registry
        )
        name = "taskapi_pool_connections_in_use"
        self.in_use = Gauge(name, "Database connections in use.", registry=registry, multiprocess_mode="livesum")
        self._loaded = Gauge(
            "taskapi_key_set_loaded_timestamp_seconds",
            "When the oldest key set was loaded.",
            ["url"],  # so that a process without a key set says nothing
            registry=registry,
            multiprocess_mode="livemin",
        )

    def count(self, response: Response) -> Response:
        """Count an answer, after the request."""
        route = request.url_rule.rule if request.url_rule else "none"
        self._answered.labels(route, known_method(), response.status_code).inc()
        self._seconds.labels(route, known_method()).observe(perf_counter() - g.began)
        self._retries.inc(g.get("retries", 0))
        loaded_at = self._app.extensions["taskapi.keys"].loaded_at
        if loaded_at is not None:
            self._loaded.labels(self._app.config["JWT_JWKS_URL"]).set(loaded_at)
        return response

    def show(self) -> Response:
        """The page that Prometheus reads."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def init_app(app: Flask) -> None:
    """Count and time requests, and add /metrics, where the setting says so."""
    if not app.config["METRICS"]:
        return
    metrics = Metrics(app)
    bp = Blueprint("metrics", __name__)
    bp.get("/metrics")(metrics.show)
    app.register_blueprint(bp)
    app.after_request(metrics.count)
    with app.app_context():
        event.listen(db.engines[AUTOCOMMIT], "checkout", lambda *_: metrics.in_use.inc())
        event.listen(db.engines[AUTOCOMMIT], "checkin", lambda *_: metrics.in_use.dec())
