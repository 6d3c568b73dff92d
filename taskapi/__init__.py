"""A task service: REST over Flask, one owner-scoped SQL statement per request."""

import os
import re
from collections.abc import Mapping

from flask import Flask, Response, request
from flask_cors import CORS

from taskapi import cli, config, database, docs, errors, health, keys, logs, metrics, tasks
from taskapi.wire import StrictJSON

REQUEST_HEADERS = ["Authorization", "Content-Type", "If-Match", "If-None-Match", "X-Request-ID"]
RESPONSE_HEADERS = ["ETag", "Link", "Location", "Retry-After", "X-Request-ID"]
PREFLIGHT_SECONDS = 600  # how long a browser may remember a preflight; Chromium's longest is 7,200


def create_app(settings: Mapping[str, str] | None = None) -> Flask:
    """Return the service; settings go before the environment's. Raises config.SettingsError."""
    app = Flask(__name__, static_folder=None)
    app.config.from_mapping(config.load({**os.environ, **(settings or {})}))
    app.json = StrictJSON(app)
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # /api/tasks/ is /api/tasks; no redirects

    logs.init_app(app)
    database.init_app(app)
    keys.init_app(app)

    _allow_origins(app)
    errors.init_app(app)
    app.after_request(_set_headers)

    app.register_blueprint(tasks.bp)
    app.register_blueprint(health.bp)
    app.register_blueprint(docs.bp)
    metrics.init_app(app)
    if app.config["DEBUG"]:
        app.add_url_rule("/example", view_func=docs.example)
    cli.init_app(app)
    return app


def _allow_origins(app: Flask) -> None:
    """CORS for the origins in FRONTEND_URL, each matched exactly."""
    # A plain string would match in any case, and be taken for a pattern where it has a bracket (IPv6).
    origins = [re.compile(re.escape(origin) + r"\Z") for origin in app.config["FRONTEND_ORIGINS"]]
    CORS(
        app,
        origins=origins,
        methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=REQUEST_HEADERS,
        expose_headers=RESPONSE_HEADERS,
        max_age=PREFLIGHT_SECONDS,
        vary_header=False,  # it leaves Vary out where the origin does not match, which is where a cache needs it most
    )


def _set_headers(response: Response) -> Response:
    response.headers.add("Vary", "Origin")
    response.headers["X-Content-Type-Options"] = "nosniff"
    if tasks.is_under_prefix(request.path):
        response.headers["Cache-Control"] = "private, no-cache"
    return response
