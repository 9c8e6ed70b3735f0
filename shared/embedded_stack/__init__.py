"""Real Valkey and PostgreSQL from wheels, and a mailbox that speaks SMTP: what `./dev run` and the tests stand on."""

from embedded_stack.mailbox import Mailbox, ReceivedMail
from embedded_stack.postgres import PostgresServer, postgres_server
from embedded_stack.server import Server, ServerFailedError
from embedded_stack.valkey import RedisServer, redis_server

__all__ = [
    "Mailbox",
    "PostgresServer",
    "ReceivedMail",
    "RedisServer",
    "Server",
    "ServerFailedError",
    "postgres_server",
    "redis_server",
]
