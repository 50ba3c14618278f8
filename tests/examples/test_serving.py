"""The example service, started for real, with real clients at the same time."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pah_opt
from pah_opt import Artifact, Recipe, Step
from pah_opt.testing import tiny_vit

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("prometheus_client", reason="needs the extra serve")
Image = pytest.importorskip("PIL.Image", reason="needs the extra serve")

SERVER = Path(__file__).parents[2] / "examples" / "serving" / "server.py"
LABELS = tuple(f"animal {letter}" for letter in "abcdefghij")
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor", "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_resize": True, "size": {"height": 32, "width": 32},
}  # fmt: skip
MAX_BYTES = 60_000
CLIENTS = 24


@dataclass
class Server:
    """A running service."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        is_json = answer.getheader("content-type", "").startswith("application/json")
        return answer.status, json.loads(data) if is_json else data.decode(), answer.headers

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.ask("GET", "/metrics")[1], re.MULTILINE)
        return float(found.group(1)) if found else 0.0


def started(model: Path, *options: str) -> Server:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = model.parent / f"{port}.log"
    with log.open("wb") as errors:
        command = [sys.executable, str(SERVER), str(model), "--port", str(port), *options]
        process = subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL)
    server = Server(process, port, log)
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None and not answers(server):
        time.sleep(0.1)
    if process.poll() is not None or not answers(server):
        process.kill()
        raise AssertionError(log.read_text())
    return server


def answers(server: Server) -> bool:
    try:
        return server.ask("GET", "/health/ready")[0] == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    recipe = Recipe(name="tiny-animals", steps=(Step.of("magnitude-pruning", sparsity=0.5),))
    return Artifact(tiny_vit(blocks=1), recipe, (), "hf-vit", class_names=LABELS, processor=PROCESSOR)


@pytest.fixture(scope="module")
def folder(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact.save(tmp_path_factory.mktemp("serving") / "artifact")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    running = started(folder, "--max-wait-ms", "50", "--max-bytes", str(MAX_BYTES), "--max-images", "4")
    yield running
    running.process.kill()
    running.process.wait()


def picture(seed: int) -> bytes:
    """A PNG with pixels of its own, in the size that the model takes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def right_answer(artifact: Artifact, encoded: bytes) -> list[tuple[str, float]]:
    """What the model says, preprocessed here by hand."""
    pixels = torch.from_numpy(np.asarray(Image.open(io.BytesIO(encoded))).copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        scores = artifact.model((pixels - 0.5) / 0.25).logits.softmax(-1)[0]
    order = scores.argsort(descending=True)
    return [(LABELS[number], float(scores[number])) for number in order]


def assert_right(shown: list[dict[str, Any]], artifact: Artifact, encoded: bytes, top: int) -> None:
    wanted = right_answer(artifact, encoded)[:top]
    assert [one["label"] for one in shown] == [label for label, _ in wanted]
    assert [one["score"] for one in shown] == pytest.approx([score for _, score in wanted], abs=1e-4)


def test_many_clients_at_once_all_get_the_models_answers_in_shared_batches(server: Server, artifact: Artifact) -> None:
    pictures = [picture(seed) for seed in range(3 * CLIENTS)]
    batches, images = server.metric("vit_batch_images_count"), server.metric("vit_batch_images_sum")
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda one: server.ask("POST", "/predict?top=3", one), pictures))
    for encoded, (status, body, _) in zip(pictures, answers, strict=True):
        assert status == 200
        assert body["model"] == "tiny-animals"
        assert_right(body["predictions"][0], artifact, encoded, 3)
    batches, images = server.metric("vit_batch_images_count") - batches, server.metric("vit_batch_images_sum") - images
    assert images == len(pictures)
    assert batches < len(pictures) / 2  # more than two images to a batch, on average
    assert server.metric('vit_requests_total{path="/predict",status="200"}') >= len(pictures)
    assert server.metric("vit_request_seconds_count") >= len(pictures)
    assert server.metric("vit_queue_images") == 0


def form(*files: bytes) -> tuple[bytes, dict[str, str]]:
    head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body = b"".join(head + file + b"\r\n" for file in files) + b"--edge--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=edge"}


def test_several_images_of_one_request_keep_their_order(server: Server, artifact: Artifact) -> None:
    pictures = [picture(seed) for seed in (7, 8, 9)]
    status, body, _ = server.ask("POST", "/predict?top=10", *form(*pictures))
    assert status == 200
    assert len(body["predictions"]) == 3
    for shown, encoded in zip(body["predictions"], pictures, strict=True):
        assert_right(shown, artifact, encoded, 10)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/predict", b"not an image", 400, r"the image cannot be decoded \(UnidentifiedImageError"),
        ("/predict", picture(1)[:200], 400, r"the image cannot be decoded"),
        ("/predict", b"", 400, r"there is no image: send its bytes"),
        ("/predict?top=99", picture(1), 400, r"top is '99'; allowed: 1 to 10"),
        ("/predict", b"x" * (MAX_BYTES + 1), 413, rf"larger than {MAX_BYTES} bytes"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    path: str, body: bytes, status: int, message: str, server: Server
) -> None:
    found, answer, _ = server.ask("POST", path, body)
    assert found == status
    assert re.search(message, answer["error"])


def test_too_many_files_and_a_body_without_a_stated_length_are_refused_too(server: Server) -> None:
    status, answer, _ = server.ask("POST", "/predict", *form(*[picture(1)] * 5))
    assert status == 400
    assert "Too many files" in answer["error"]
    chunks = (b"%x\r\n%s\r\n" % (10_000, b"x" * 10_000) for _ in range(7))
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for chunk in chunks:
            raw.sendall(chunk)
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")


def test_live_and_ready_are_answered(server: Server) -> None:
    assert server.ask("GET", "/health/live")[:2] == (200, {"status": "live"})
    assert server.ask("GET", "/health/ready")[:2] == (200, {"status": "ready", "model": "tiny-animals"})


def test_a_full_queue_turns_away_and_sigterm_lets_accepted_requests_end(folder: Path, artifact: Artifact) -> None:
    # A batch that is never full waits long: the queue is what the test makes it.
    running = started(folder, "--max-wait-ms", "3000", "--max-batch", "64", "--max-queue", "4", "--max-images", "8")
    try:
        status, answer, headers = running.ask("POST", "/predict", *form(*[picture(1)] * 5))
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "too many images are waiting" in answer["error"]
        with ThreadPoolExecutor(1) as client:
            accepted = client.submit(running.ask, "POST", "/predict", picture(2))
            time.sleep(1.0)
            running.process.send_signal(signal.SIGTERM)
            status, answer, _ = accepted.result(timeout=60)
        assert status == 200
        assert_right(answer["predictions"][0], artifact, picture(2), 5)
        assert running.process.wait(timeout=60) == 0
        log = running.log.read_text()
        assert "Finished server process" in log
        assert "Traceback" not in log
    finally:
        running.process.kill()
        running.process.wait()


def test_an_export_to_onnx_is_served_the_same(artifact: Artifact, folder: Path, tmp_path: Path) -> None:
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason="needs the extra export")
    pah_opt.export(folder, "onnx", tmp_path / "onnx")
    running = started(tmp_path / "onnx")
    try:
        status, answer, _ = running.ask("POST", "/predict?top=10", picture(4))
    finally:
        running.process.kill()
        running.process.wait()
    assert status == 200
    assert_right(answer["predictions"][0], artifact, picture(4), 10)


def test_a_folder_that_is_no_model_ends_the_service_with_the_reason(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SERVER), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is neither a saved artifact nor an exported one" in done.stderr
