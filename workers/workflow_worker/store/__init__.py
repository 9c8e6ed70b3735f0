"""The only files of this worker with SQL in them."""
