"""Remember a model's values and put them back; and a training's whole state in one safe file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.errors import ArtifactError
from pah_opt.models.disk import os_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FORMAT = 1


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and every buffer of a model, not copied."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def values_of(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Return copies, on the CPU, of named parameters and of every buffer."""
    state = state_of(model)
    buffers = (name for name, _ in model.named_buffers())
    return {name: state[name].detach().to("cpu", copy=True) for name in (*names, *buffers)}


@torch.no_grad()
def put_back(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy remembered values into a model's parameters and buffers, in place."""
    state = state_of(model)
    for name, value in values.items():
        state[name].detach().copy_(value)


def digest_of(values: Mapping[str, Tensor]) -> str:
    """Return a hash of names, types and exact values, on whatever device they are."""
    digest = hashlib.sha256()
    for name, value in sorted(values.items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass
class Checkpoint:
    """The state of an interrupted training.

    Args:
        identity: what the training is: settings, seed, images, initial weights and so on, hashed.
        step: updates done.
        progress: history and other plain data.
        values: trained parameters and buffers.
        best: the same, of the best epoch, or of the last one without validation images; empty where it is ``values``.
        moments: the optimizer's state, by parameter name and field.
    """

    identity: str
    step: int
    progress: dict[str, Any]
    values: dict[str, Tensor]
    best: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]

    def save(self, path: Path) -> None:
        """Write one file, whole or not at all.

        Raises:
            ArtifactError: it cannot be written.
        """
        from safetensors.torch import save_file

        tensors = {f"values/{name}": value for name, value in self.values.items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {
            f"moments/{field}/{name}": value.cpu()
            for name, fields in self.moments.items()
            for field, value in fields.items()
        }
        facts = {"format": FORMAT, "identity": self.identity, "step": self.step, "progress": self.progress}
        partial = path.with_name(path.name + ".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with os_errors():
                save_file(
                    {name: value.contiguous() for name, value in tensors.items()}, partial,
                    {"training": json.dumps(facts)},
                )  # fmt: skip
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ArtifactError(
                f"the checkpoint {path} cannot be written ({error}); free some space, or name another folder"
            ) from error

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a file that :meth:`save` wrote.

        Raises:
            ArtifactError: it is damaged, or of another version.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as stored:
                facts = json.loads((stored.metadata() or {})["training"])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # not a mapping
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise ArtifactError(f"the checkpoint {path} is damaged ({error}); remove it to start again") from error
        if facts.get("format") != FORMAT:
            raise ArtifactError(
                f"the checkpoint {path} has format {facts.get('format')}, this version reads {FORMAT}; remove it"
            )
        parts: dict[str, dict[str, Tensor]] = {"values": {}, "best": {}, "moments": {}}
        for name, value in tensors.items():
            room, _, inner = name.partition("/")
            parts[room][inner] = value
        moments: dict[str, dict[str, Tensor]] = {}
        for name, value in parts["moments"].items():
            field, _, parameter = name.partition("/")
            moments.setdefault(parameter, {})[field] = value
        return cls(facts["identity"], facts["step"], facts["progress"], parts["values"], parts["best"], moments)

    def check(self, identity: str, path: Path) -> None:
        """Refuse to continue a training that is not this one.

        Raises:
            ArtifactError: settings, seed, images, weights, teacher or the number of processes differ.
        """
        if self.identity != identity:
            raise ArtifactError(
                f"the checkpoint {path} belongs to another training (other settings, seed, images, weights, teacher or "
                "number of processes); remove it, or name another folder"
            )


def optimizer_moments(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    """Return AdamW's state by parameter name: ``step``, ``exp_avg``, ``exp_avg_sq``."""
    return {
        name: dict(optimizer.state[parameter]) for name, parameter in parameters.items() if parameter in optimizer.state
    }


def restore_moments(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    moments: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Give an optimizer the state that :func:`optimizer_moments` returned."""
    for name, fields in moments.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            # AdamW counts its steps on the CPU, whatever device the weights are on.
            field: value if field == "step" else value.to(parameter.device)
            for field, value in fields.items()
        }
