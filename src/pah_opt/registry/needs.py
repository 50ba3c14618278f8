"""What a step needs besides the model, compared with what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pah_opt.environment import Environment
    from pah_opt.optimizer import Needs

GIVE_IMAGES = "give training images: data=... in Python, --data on the command line"


@dataclass(frozen=True)
class Supply:
    """What will be there when the recipe runs.

    Args:
        environment: the machine; None for any.
        calibration: whether there are calibration images.
        training: whether there are training images.
    """

    environment: Environment | None
    calibration: bool = True
    training: bool = True

    def unmet(self, needs: Needs) -> Iterator[tuple[str, str]]:
        """Yield what is missing, each with its remedy."""
        if (needs.calibration or needs.labels) and not self.calibration:
            kind = "labelled calibration images" if needs.labels else "calibration images"
            yield f"needs {kind}, and there are none", _with_alternative(GIVE_IMAGES, needs)
        if needs.training and not self.training:
            yield "needs training images with labels, and there are none", _with_alternative(GIVE_IMAGES, needs)
        yield from self.unmet_hardware(needs)

    def unmet_hardware(self, needs: Needs) -> Iterator[tuple[str, str]]:
        """Yield what this machine lacks, each with its remedy."""
        if self.environment is None or not (needs.cuda or needs.capability):
            return
        if not self.environment.has_cuda:
            yield "needs a CUDA device, and there is none", _with_alternative("run it on a machine with one", needs)
            return
        found = self.environment.compute_capability
        if needs.capability and (found is None or found < needs.capability):
            wanted = f"compute capability {_version(needs.capability)} or newer"
            here = "of unknown capability" if found is None else f"of capability {_version(found)}"
            yield f"needs a CUDA device of {wanted}, this one is {here}", _with_alternative("use a newer one", needs)


def _version(capability: tuple[int, int]) -> str:
    return ".".join(str(part) for part in capability)


def _with_alternative(remedy: str, needs: Needs) -> str:
    return f"{remedy}; or {needs.instead}" if needs.instead else remedy
