# Read by the flask command alone, for development. The environment and .env go before it; gunicorn never sees it.
FLASK_APP=wsgi
FLASK_DEBUG=1
# The service answers every error itself, in JSON; the interactive debugger would only add a console to attack.
FLASK_RUN_DEBUGGER=0
# Public: refused outside debug mode.
JWT_SECRET=known-to-everyone-for-development-only
