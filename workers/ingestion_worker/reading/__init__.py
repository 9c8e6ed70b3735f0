"""Reading: what a file is, whether it is safe to open, its text page by page. It runs in a process of its own."""
