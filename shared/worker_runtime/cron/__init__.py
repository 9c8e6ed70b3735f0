"""When something is due by a schedule of cron's."""

from worker_runtime.cron.crontab import Crontab
from worker_runtime.cron.due import next_due

__all__ = ["Crontab", "next_due"]
