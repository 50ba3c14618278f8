"""``artifact.json``: how a model was made, and what is needed to rebuild it; read and written without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from pah_opt.artifact.files import DESCRIPTION
from pah_opt.artifact.record import Artifact, StepRecord, WeightsOrigin
from pah_opt.errors import ArtifactError
from pah_opt.recipe.schema import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StepDescription(_Data):
    """One step, as in :class:`~pah_opt.artifact.record.StepRecord`."""

    use: str
    config: dict[str, JsonValue]
    achieved: dict[str, JsonValue]
    before: dict[str, JsonValue]
    after: dict[str, JsonValue]
    seconds: float
    state: dict[str, JsonValue]


class Description(_Data):
    """Everything about an artifact but its tensors.

    Args:
        adapter: name of the ModelAdapter that rebuilds the model.
        structure: what that adapter rebuilds it from.
        recipe: what was asked.
        steps: what each step did.
        weights_origin: where the dense weights came from.
        source: hub name or path of the dense model.
        class_names: names of the classes.
        tags: state tags after the last step.
        environment: what made it.
    """

    adapter: str
    structure: dict[str, JsonValue]
    recipe: Recipe
    steps: tuple[StepDescription, ...]
    weights_origin: WeightsOrigin
    source: str | None
    class_names: tuple[str, ...]
    tags: tuple[str, ...]
    environment: dict[str, JsonValue] = Field(default_factory=dict)

    @classmethod
    def of(cls, artifact: Artifact, structure: Mapping[str, Any], environment: Mapping[str, Any]) -> Description:
        """Describe an artifact.

        Raises:
            ArtifactError: something that a step recorded is not JSON data.
        """
        try:
            return cls(
                adapter=artifact.adapter, structure=dict(structure), recipe=artifact.recipe,
                steps=tuple(_described(step) for step in artifact.steps), weights_origin=artifact.weights_origin,
                source=artifact.source, class_names=artifact.class_names, tags=tuple(sorted(artifact.tags)),
                environment=dict(environment),
            )  # fmt: skip
        except ValidationError as error:
            raise ArtifactError(f"the artifact cannot be described as JSON: {_problems(error)}") from error

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return self.model_dump_json(by_alias=True, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Description:
        """Read the file.

        Raises:
            ArtifactError: it does not describe an artifact.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ArtifactError(f"{DESCRIPTION} does not describe an artifact: {_problems(error)}") from error

    @property
    def step_records(self) -> tuple[StepRecord, ...]:
        """The steps as an Artifact has them."""
        return tuple(StepRecord(s.use, s.config, s.achieved, s.before, s.after, s.seconds, s.state) for s in self.steps)


def _described(step: StepRecord) -> StepDescription:
    return StepDescription(
        use=step.use, config=dict(step.config), achieved=dict(step.achieved), before=dict(step.before),
        after=dict(step.after), seconds=step.seconds, state=dict(step.state),
    )  # fmt: skip


def _problems(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False)
    shown = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems[:3])
    return shown + (f" (and {len(problems) - 3} more)" if len(problems) > 3 else "")
