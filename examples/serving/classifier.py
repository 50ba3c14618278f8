"""What is served: a saved artifact, or one exported to ONNX; from image bytes to probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pah_opt.data.decode import decode
from pah_opt.data.preprocess import load_processor, processor_channels
from pah_opt.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Run = Callable[[NDArray[Any]], NDArray[Any]]


class Classifier:
    """A model with its own preprocessing and its class names.

    Args:
        name: of the recipe that made it.
        labels: one for each class.
        processor: the model's own image processor.
        run: from pixels ``(batch, channels, height, width)`` to logits ``(batch, classes)``, both float32.
    """

    def __init__(self, name: str, labels: tuple[str, ...], processor: Any, run: Run) -> None:
        self.name = name
        self.labels = labels
        self._processor = processor
        self._run = run

    def pixels(self, encoded: bytes) -> NDArray[Any]:
        """Decode and preprocess one image, to ``(channels, height, width)``.

        Raises:
            DataError: it is no image that can be read.
        """
        image = decode(encoded, processor_channels(self._processor), "the image")
        pixels: NDArray[Any] = self._processor(image, return_tensors="np")["pixel_values"][0]
        return pixels.astype(np.float32)

    def probabilities(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return ``(batch, classes)`` for pixels ``(batch, channels, height, width)``."""
        logits = self._run(pixels)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def load(folder: Path) -> Classifier:
    """Load an artifact's folder, or the folder of an export to ONNX; checksums are compared.

    Raises:
        ArtifactError: it is neither, or damaged.
    """
    if Path(folder, "artifact.json").is_file():
        return _artifact(folder)
    if Path(folder, "export.json").is_file():
        return _onnx(folder)
    raise ArtifactError(f"{folder} is neither a saved artifact nor an exported one; see pah-opt export --help")


def _artifact(folder: Path) -> Classifier:
    import torch

    import pah_opt

    artifact = pah_opt.load(folder)

    def run(pixels: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            output = artifact.model(torch.from_numpy(pixels))
        logits: NDArray[Any] = getattr(output, "logits", output).float().numpy()
        return logits

    with torch.inference_mode():
        classes = len(run(artifact.examples.pixel_values[:1].numpy())[0]) if artifact.examples else 0
    labels = artifact.class_names or tuple(f"class {number}" for number in range(classes))
    return Classifier(artifact.recipe.name, labels, load_processor(folder), run)


def _onnx(folder: Path) -> Classifier:
    import onnxruntime

    from pah_opt.export import read_export

    made = read_export(folder)
    if made.target != "onnx":
        raise ArtifactError(f"{folder} is an export to {made.target}; this service runs artifacts and exports to onnx")
    session = onnxruntime.InferenceSession(str(folder / made.file))

    def run(pixels: NDArray[Any]) -> NDArray[Any]:
        logits: NDArray[Any] = session.run([made.output], {made.input.name: pixels})[0]
        return logits

    return Classifier(made.recipe, made.labels, load_processor(folder), run)
