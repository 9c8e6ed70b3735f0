"""The scripts that are our data model, by the hash Redis knows them by: a new release is read before it is used."""

from __future__ import annotations

import pytest

from worker_runtime.bullmq.scripts import shipped

REVIEWED = {
    "addLog-2": "eecb06ad6c96fa5da4fa8bca0ea7a1bf1bf62f18",
    "addDelayedJob-6": "ef55a5770d2c32d68b8528f29ced32261188aa30",
    "addPrioritizedJob-9": "7fe9ddf6854813edeaaa9b83839ac94693b1de8f",
    "addStandardJob-9": "10f8d228e89ed4f765afc5b3bafb6defbb84e311",
    "moveJobFromActiveToWait-9": "2f746a769bc3d182a0f73ace6bb7a4906faf5df9",
    "moveStalledJobsToWait-9": "1e9bb7deb6219644a634d32c430ce15ed39a377e",
    "moveToActive-11": "d96ca626f1ea141b44a856b312fc636d99aa9ea9",
    "moveToDelayed-11": "9f83944d6edafd63c74121d73299dd3358ddfe0c",
    "moveToFinished-14": "69666e69dd5621df59067a03de685e55a486560d",
    "pause-7": "8c25f7be363de2a28428dae13ddc20ffb3f6e7aa",
    "promote-9": "1d740f19fe984343737df70206877be7cbab6913",
    "retryJob-11": "812d06de3eaf0fb70e333b3d0142eed8bf630a2d",
    "updateJobScheduler-12": "4da21b4a6efa92d4c0bdfc40e803ecc1e9ab4eb5",
    "updateProgress-3": "e992d1814b869c8def8e67ef117b3ed2cc95771f",
}


@pytest.mark.parametrize("name", REVIEWED)
def test_the_script_is_the_one_that_was_reviewed(name: str) -> None:
    assert shipped(name).sha == REVIEWED[name], "read the difference, run tests/interop, then record the new hash"
