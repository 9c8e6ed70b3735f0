"""The jobs-worker: side effects that Procrastinate keeps in a database of their own."""
