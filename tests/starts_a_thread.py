"""A module of a task that makes forking unsafe."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
