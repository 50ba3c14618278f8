"""The layout of a model repository of Triton Inference Server, and its ``config.pbtxt``. No torch here.

References:
    https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_repository.html
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from pah_opt.errors import ExportRefusedError, Problem
from pah_opt.export.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pah_opt.export.targets import Target

LayoutName = Literal["plain", "triton"]
LAYOUTS: tuple[LayoutName, ...] = ("plain", "triton")
QUEUE_DELAY_US = 2000
"""How long Triton waits for a batch to fill, in microseconds."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


class Repository(NamedTuple):
    """Where a model goes in a folder.

    Args:
        layout: ``plain``, or ``triton`` for a model repository.
        name: of the model in the repository.
        max_batch: the most images Triton puts together.
    """

    layout: LayoutName = "plain"
    name: str | None = None
    max_batch: int = 64

    def model_folder(self, folder: Path) -> Path:
        """Return the folder for the model's own files."""
        return folder if self.layout == "plain" else folder / str(self.name) / "1"

    def problems(self, target: Target) -> list[Problem]:
        """Return what is wrong with it for a target."""
        if self.layout not in LAYOUTS:
            return [Problem(f"there is no layout {self.layout!r}", allowed=", ".join(LAYOUTS))]
        if self.layout == "plain":
            return [Problem("a name belongs to the layout triton", remedy="add --layout triton")] if self.name else []
        return _triton_problems(self, target)


def _triton_problems(repository: Repository, target: Target) -> list[Problem]:
    found = []
    if not target.triton:
        served = ", ".join(name for name, known in TARGETS.items() if known.triton)
        found.append(Problem(f"Triton's layout is not written for {target.name}", allowed=served))
    if repository.name is None or not _NAME.fullmatch(repository.name):
        found.append(Problem(
            f"the model's name is {repository.name!r}", allowed="letters, digits, '_', '-' and '.'",
            remedy="add --name NAME",
        ))  # fmt: skip
    if repository.max_batch < 1:
        found.append(Problem(f"max_batch is {repository.max_batch}", allowed="1 and more"))
    return found


def require_layout(repository: Repository, target: Target) -> None:
    """Refuse a layout that does not fit.

    Raises:
        ExportRefusedError: names everything that is wrong.
    """
    found = repository.problems(target)
    if found:
        raise ExportRefusedError(found, f"{target.name} was not exported")


def write_repository(
    repository: Repository, folder: Path, target: Target, *, inputs: tuple[str, Sequence[int]], output: str,
    labels: Sequence[str],
) -> None:  # fmt: skip
    """Write ``config.pbtxt`` and ``labels.txt`` beside the version folder that holds the model.

    Args:
        repository: name and largest batch.
        folder: the repository.
        target: what the model is.
        inputs: name of the input; channels, height and width.
        output: name of the output.
        labels: names of the classes, each on one line.
    """
    home = folder / str(repository.name)
    (home / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    (home / "config.pbtxt").write_text(
        config_text(repository, target, inputs=inputs, output=output, classes=len(labels)), encoding="utf-8"
    )


def config_text(
    repository: Repository, target: Target, *, inputs: tuple[str, Sequence[int]], output: str, classes: int
) -> str:
    """Return the text of ``config.pbtxt``; dimensions are those of one image, Triton adds the batch."""
    name, shape = inputs
    # OpenVINO's backend runs on CPUs; ONNX Runtime's takes a GPU where there is one.
    kind = "KIND_CPU" if target.triton == "openvino" else "KIND_AUTO"
    return f"""name: {json.dumps(repository.name)}
backend: {json.dumps(target.triton)}
max_batch_size: {repository.max_batch}
input [
  {{
    name: {json.dumps(name)}
    data_type: TYPE_FP32
    dims: [ {", ".join(map(str, shape))} ]
  }}
]
output [
  {{
    name: {json.dumps(output)}
    data_type: TYPE_FP32
    dims: [ {classes} ]
    label_filename: "labels.txt"
  }}
]
dynamic_batching {{
  max_queue_delay_microseconds: {QUEUE_DELAY_US}
}}
instance_group [
  {{
    count: 1
    kind: {kind}
  }}
]
version_policy: {{ latest: {{ num_versions: 1 }} }}
"""
