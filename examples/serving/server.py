"""Serve an image classifier over HTTP: ``python server.py MODEL``; see README.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import uvicorn
from batching import Batcher, QueueFullError
from classifier import Classifier, load
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pah_opt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RETRY_AFTER_S = 1
SHOWN = 5
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Limits(NamedTuple):
    """What is accepted.

    Args:
        max_batch: images that the model gets at once.
        max_wait_s: seconds that an image waits for others.
        max_queue: images that wait in all; more are turned away.
        max_bytes: of a request's body.
        max_images: of a request.
    """

    max_batch: int = 16
    max_wait_s: float = 0.005
    max_queue: int = 256
    max_bytes: int = 16 * 2**20
    max_images: int = 32


class Metrics:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        given = {"registry": self.registry}
        self.requests = Counter("vit_requests", "Requests by path and status.", ("path", "status"), **given)
        self.seconds = Histogram("vit_request_seconds", "Time to answer /predict.", buckets=SECONDS, **given)
        self.batches = Histogram("vit_batch_images", "Images in a batch.", buckets=BATCHES, **given)
        self.model = Histogram("vit_model_seconds", "Time the model takes for a batch.", buckets=SECONDS, **given)
        self.queue = Gauge("vit_queue_images", "Images that wait.", **given)

    def batch(self, images: int, seconds: float) -> None:
        """Note a batch."""
        self.batches.observe(images)
        self.model.observe(seconds)


class Service:
    """The handlers, and what they share.

    Args:
        classifier: what answers.
        limits: what is accepted.
    """

    def __init__(self, classifier: Classifier, limits: Limits) -> None:
        self._classifier = classifier
        self._limits = limits
        self._metrics = Metrics()
        self._ready = False
        self._batcher = Batcher(
            classifier.probabilities, max_batch=limits.max_batch, max_wait_s=limits.max_wait_s,
            max_queue=limits.max_queue, observe=self._metrics.batch,
        )  # fmt: skip
        self._metrics.queue.set_function(lambda: self._batcher.waiting)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/predict", self._counted(self.predict), methods=["POST"]),
            Route("/health/live", self.live),
            Route("/health/ready", self.ready),
            Route("/metrics", self.metrics),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: _as_json})

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._batcher.start()
        self._ready = True
        yield
        # By now no request is accepted, and those accepted before have their answers.
        self._ready = False
        await self._batcher.close()

    async def live(self, _request: Request) -> Response:
        """Tell that the process answers."""
        return JSONResponse({"status": "live"})

    async def ready(self, _request: Request) -> Response:
        """Tell whether images are classified: not while the queue is full."""
        ready = self._ready and self._batcher.waiting < self._limits.max_queue
        body = {"status": "ready" if ready else "busy", "model": self._classifier.name}
        return JSONResponse(body, status_code=200 if ready else 503)

    async def metrics(self, _request: Request) -> Response:
        """Return the metrics in Prometheus's text format."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def predict(self, request: Request) -> Response:
        """Classify the image in the body, or every file of a form; ``?top=N`` for the number of classes shown."""
        top = _top(request, len(self._classifier.labels))
        encoded = await self._images(request)
        loop = asyncio.get_running_loop()
        try:
            pixels = await asyncio.gather(
                *(loop.run_in_executor(None, self._classifier.pixels, one) for one in encoded)
            )
        except DataError as error:
            raise HTTPException(400, str(error)) from error
        try:
            rows = await self._batcher.submit(pixels)
        except QueueFullError as error:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise HTTPException(503, "too many images are waiting; try again later", headers) from error
        return JSONResponse({"model": self._classifier.name, "predictions": [self._shown(row, top) for row in rows]})

    def _shown(self, row: np.ndarray[Any, Any], top: int) -> list[dict[str, Any]]:
        best = np.argsort(-row, kind="stable")[:top]
        return [{"label": self._classifier.labels[number], "score": round(float(row[number]), 6)} for number in best]

    async def _images(self, request: Request) -> list[bytes]:
        body = await self._body(request)
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            images = await _files(request, body, self._limits.max_images)
        else:
            images = [body]
        if not images or not all(images):
            raise HTTPException(400, "there is no image: send its bytes as the body, or files in a multipart form")
        return images

    async def _body(self, request: Request) -> bytes:
        """Read the body, and stop as soon as it is too large."""
        limit, parts, size = self._limits.max_bytes, [], 0
        stated = request.headers.get("content-length", "0")
        too_large = HTTPException(413, f"the request is larger than {limit} bytes", {"Connection": "close"})
        if stated.isdigit() and int(stated) > limit:
            raise too_large
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large
            parts.append(part)
        return b"".join(parts)

    def _counted(self, handler: Any) -> Any:
        """Count and time a handler's answers, refusals too."""

        async def counted(request: Request) -> Response:
            began, status = time.monotonic(), 500
            try:
                response: Response = await handler(request)
                status = response.status_code
            except HTTPException as error:
                status = error.status_code
                raise
            finally:
                self._metrics.requests.labels(request.url.path, status).inc()
                self._metrics.seconds.observe(time.monotonic() - began)
            return response

        return counted


def _top(request: Request, classes: int) -> int:
    text = request.query_params.get("top", str(min(SHOWN, classes)))
    if not text.isdecimal() or not 1 <= int(text) <= classes:
        raise HTTPException(400, f"top is {text!r}; allowed: 1 to {classes}")
    return int(text)


async def _files(request: Request, body: bytes, most: int) -> list[bytes]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async with Request(request.scope, receive).form(max_files=most, max_fields=0) as form:
        return [await file.read() for _, file in form.multi_items() if isinstance(file, UploadFile)]


def _as_json(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


def arguments() -> argparse.Namespace:
    limits = Limits()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a saved artifact, or of an export to onnx")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-batch", type=int, default=limits.max_batch)
    parser.add_argument("--max-wait-ms", type=float, default=limits.max_wait_s * 1000)
    parser.add_argument("--max-queue", type=int, default=limits.max_queue)
    parser.add_argument("--max-bytes", type=int, default=limits.max_bytes)
    parser.add_argument("--max-images", type=int, default=limits.max_images)
    parser.add_argument("--grace-s", type=int, default=30, help="to answer what was accepted, after SIGTERM")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    # uvicorn shuts down in order on SIGTERM, then sends the signal again: that is no failure.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    # An image that unpacks to more pixels than any photograph has is refused, not decoded with a warning.
    warnings.filterwarnings("error", message=".*decompression bomb.*")
    limits = Limits(given.max_batch, given.max_wait_ms / 1000, given.max_queue, given.max_bytes, given.max_images)
    service = Service(load(given.model), limits)
    uvicorn.run(
        service.app(), host=given.host, port=given.port, timeout_graceful_shutdown=given.grace_s, access_log=False
    )


if __name__ == "__main__":
    main()
