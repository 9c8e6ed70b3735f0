"""Tasks that every jobs-worker has."""
