"""`intelliflow jobs`: the queue of side effects, what is in it and what to do about it."""
