"""Tasks: the blueprint, its schemas, and its owner-scoped statements."""
