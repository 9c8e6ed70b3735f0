"""What comes after a document was read: jobs for the other queues, as far as their stages are on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import structlog

from worker_runtime.bullmq.producer import NewJob

if TYPE_CHECKING:
    from ingestion_worker.records import Content, DocumentKey
    from worker_runtime.bullmq.producer import JobQueue

__all__ = ["Following"]

log = structlog.get_logger()


class Following:
    """Adds the job of the next stage. One that is switched off gets none, and the log says so once.

    Added again for the same content, a job is the same one, unless that has ended: then it is done again.
    """

    def __init__(self, ocr: JobQueue | None, embedding: JobQueue | None) -> None:
        self._ocr = ocr
        self._embedding = embedding
        self._said: set[str] = set()

    def will_recognise(self, pictures: int) -> bool:
        """Tell whether somebody will read so many pages' pictures."""
        return pictures > 0 and self._is_on(self._ocr, "ocr-processing", "ENABLE_OCR")

    async def recognise(self, key: DocumentKey, content: Content, data: dict[str, Any]) -> None:
        """Have the pictures of a document's pages read. Only where somebody will."""
        await self._add(self._ocr, "ocr-processing", key, content, data)

    async def embed(self, key: DocumentKey, content: Content, *, asked: bool | None) -> None:
        """Have a document's chunks embedded, unless the job did not want it or nobody would."""
        if asked is None:
            asked = self._embedding is not None
        if asked and self._is_on(self._embedding, "embedding-generation", "ENABLE_EMBEDDINGS"):
            await self._add(self._embedding, "embedding-generation", key, content, {})

    def _is_on(self, queue: JobQueue | None, name: str, switch: str) -> bool:
        if queue is None and switch not in self._said:
            self._said.add(switch)
            log.warning("stage_is_off", stage=name, remedy=f"set {switch}=true to have documents go on there")
        return queue is not None

    async def _add(
        self, queue: JobQueue | None, name: str, key: DocumentKey, content: Content, data: dict[str, Any]
    ) -> None:
        if queue is None:
            raise ValueError(f"{name} is off: nobody would do it")
        same = json.dumps([name, key.tenant_id, key.document_id, content.sha256.hex(), content.pipeline])
        job_id = str(uuid5(NAMESPACE_URL, same))
        # The queue would take an id that it has seen ended for a job that is done.
        await queue.remove_finished([job_id])
        whose = {"documentId": key.document_id, "tenantId": key.tenant_id}
        await queue.add(NewJob(name=name, data=whose | data, job_id=job_id))
