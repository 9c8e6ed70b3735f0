"""A process that only ticks: `python tiny_ticker.py DATABASE_URL INSTANCE`, to be killed and frozen."""

from __future__ import annotations

import asyncio
import sys

from prometheus_client import CollectorRegistry

from worker_runtime.loops import StopSignal
from worker_runtime.workflow_metrics import WorkflowMetrics
from workflow_worker.store.cron import CronStore
from workflow_worker.ticker import Ticker

if __name__ == "__main__":
    ticker = Ticker(CronStore(sys.argv[1], sys.argv[2]), WorkflowMetrics(CollectorRegistry()), every_seconds=0.1)
    asyncio.run(ticker.run(StopSignal()))
