"""Serve an optimized model over HTTP, ask it for a class, and stop it in order.

Teaches: a saved artifact is all that examples/serving needs (pip install 'pah-opt[serve,demo]').
Output:
    ready: half-sparse-int8
    a handwritten 4 is read as 4
    ended with status 0
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image
from sklearn.datasets import load_digits

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.adapt import pretrained_digits_vit

SERVER = Path(__file__).parent / "serving" / "server.py"


def ask(url: str, body: bytes | None = None) -> dict:
    for _attempt in range(600):  # loading takes some seconds
        with contextlib.suppress(URLError):
            return json.load(urlopen(url, body, timeout=60))  # noqa: S310  # an address of this machine
        time.sleep(0.1)
    raise TimeoutError(url)


def main() -> None:
    digits, steps = pretrained_digits_vit(), (Step.of("sparsegpt"), Step.of("torchao", scheme="int8-weight-only"))
    artifact = pah_opt.apply(digits.model, Recipe(name="half-sparse-int8", steps=steps), digits.data)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVER), str(artifact.save("served", overwrite=True)), "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        print("ready:", ask(f"http://127.0.0.1:{port}/health/ready")["model"])
        image, label, file = load_digits().images[4] * 255 / 16, load_digits().target[4], io.BytesIO()
        Image.fromarray(image.astype("uint8")).save(file, "PNG")
        answer = ask(f"http://127.0.0.1:{port}/predict?top=1", file.getvalue())["predictions"][0][0]
        print(f"a handwritten {label} is read as {answer['label']}")
    finally:
        server.terminate()
        print("ended with status", server.wait(60))


if __name__ == "__main__":
    main()
