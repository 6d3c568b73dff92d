"""What taskapi costs, and what it stands. Nothing here imports taskapi: it is started as a service."""
