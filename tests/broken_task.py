"""A module of a task that nobody can import."""

raise RuntimeError("SECRET")
