"""The one door for HTTP that leaves a worker; see `client`."""

from worker_runtime.egress.addresses import EgressRefused
from worker_runtime.egress.client import KEPT_BYTES, EgressClient, EgressReply, egress, trusted_egress
from worker_runtime.egress.failures import NoAnswer, NotReached
from worker_runtime.egress.streaming import Patience, StreamedReply

__all__ = [
    "KEPT_BYTES",
    "EgressClient",
    "EgressRefused",
    "EgressReply",
    "NoAnswer",
    "NotReached",
    "Patience",
    "StreamedReply",
    "egress",
    "trusted_egress",
]
