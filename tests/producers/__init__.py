"""Applications that write events, each in its own way, without the rest of the application."""
