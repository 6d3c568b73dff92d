"""A task service: REST over Flask, one owner-scoped SQL statement per request."""

import os
import re
from collections.abc import Mapping

import click
from flask import Flask, Response, request
from flask_cors.core import get_cors_options, set_cors_headers
from psycopg2.extensions import parse_dsn

from taskapi import auth, cli, config, errors, health, logs, metrics, openapi
from taskapi.database import engine
from taskapi.tasks import views as tasks
from taskapi.wire import MAX_BODY, StrictJSON

REQUEST_HEADERS = ["Authorization", "Content-Type", "If-Match", "If-None-Match", "X-Request-ID"]
RESPONSE_HEADERS = ["ETag", "Link", "Location", "Retry-After", "X-Request-ID"]
PREFLIGHT_SECONDS = 600  # how long a browser may remember a preflight; Chromium's longest is 7,200


def create_app(settings: Mapping[str, str] | None = None) -> Flask:
    """Create the app; settings override the environment. Raises config.SettingsError."""
    app = Flask(__name__, static_folder=None)
    app.config.from_mapping(config.load({**os.environ, **(settings or {})}))
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY + 1  # where werkzeug stops reading
    app.json = StrictJSON(app)
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # /api/tasks/ is /api/tasks; no redirects

    logs.init_app(app)
    engine.init_app(app)
    _allow_origins(app)
    errors.init_app(app)
    auth.init_app(app)

    app.register_blueprint(tasks.bp)
    app.register_blueprint(health.bp)
    app.register_blueprint(openapi.bp)
    if app.debug:
        app.register_blueprint(openapi.development)
    metrics.init_app(app)

    cli.init_app(app)
    _announce(app)
    return app


def _allow_origins(app: Flask) -> None:
    """Add CORS headers for the origins in FRONTEND_URL, each matched exactly."""
    options = get_cors_options(
        app,
        {
            # flask-cors ignores case in plain strings, and reads one with a bracket (IPv6) as a pattern.
            "origins": [re.compile(re.escape(origin) + r"\Z") for origin in app.config["FRONTEND_ORIGINS"]],
            "methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            "allow_headers": REQUEST_HEADERS,
            "expose_headers": RESPONSE_HEADERS,
            "max_age": PREFLIGHT_SECONDS,
            "vary_header": False,  # auth.keep_private sets it, for origins that do not match too
        },
    )

    @app.after_request
    def allow_origin(response: Response) -> Response:
        """Handle only requests with an Origin; flask-cors's own hook handles all."""
        origin = request.headers.get("Origin")
        if origin is not None:
            set_cors_headers(response, options)
            is_allowed = "Access-Control-Allow-Origin" in response.headers or f"{origin}/" == request.host_url
            if app.debug and not is_allowed:
                app.logger.warning("The origin %r is not in FRONTEND_URL.", origin)
        return response


def _announce(app: Flask) -> None:
    """Log the configuration when serving starts; other commands print their own result."""
    command = click.get_current_context(silent=True)
    if command is not None and command.info_name != "run":
        return
    settings = app.config
    url, secret = settings["DATABASE_URL"], settings["JWT_SECRET"]
    database = url if url.startswith("sqlite:") else f"PostgreSQL at {parse_dsn(url).get('host', 'its local socket')}"
    keys = "a shared secret" if secret else settings["JWT_JWKS_URL"]
    origins = ", ".join(settings["FRONTEND_ORIGINS"]) or "no other origin"
    app.logger.info("Starting on %s, with tokens verified by %s, for pages from %s.", database, keys, origins)
    if secret == config.DEVELOPMENT_SECRET:
        app.logger.warning("JWT_SECRET is the development secret, which is public: anyone can make tokens.")
