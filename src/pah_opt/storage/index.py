"""What a weights file says about its entries besides the safetensors header: encodings, sharing, quantized tensors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pah_opt.errors import ArtifactError
from pah_opt.storage.encoding import Bitmask, Encoding

INDEX_KEY = "pah_opt"
"""Where the index is in the file's metadata."""
MAX_MASK_DEPTH = 4
"""A mask of a mask … of a mask: each level lets a file stand for eight times more zeros."""


class Quantized(BaseModel):
    """One tensor that is made of several plain ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str
    parts: tuple[str, ...]
    type: str = ""
    attributes: dict[str, Any] = Field(default_factory=dict)


class Index(BaseModel):
    """How to make a model's tensors from the entries of its file.

    Args:
        encodings: leaves that are not simply the entry of the same name.
        parts: leaves whose content is that of another leaf.
        quantized: tensors made of several leaves, named ``path.part``.
        shared: tensors that are the very same as another, such as tied weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    encodings: dict[str, Encoding] = Field(default_factory=dict)
    parts: dict[str, str] = Field(default_factory=dict)
    quantized: dict[str, Quantized] = Field(default_factory=dict)
    shared: dict[str, str] = Field(default_factory=dict)

    def to_text(self) -> str:
        """Return the index as JSON, without what is empty."""
        return self.model_dump_json(include={name for name, value in self if value})

    @classmethod
    def from_text(cls, text: str, name: str) -> Index:
        """Read the index of the file ``name``.

        Raises:
            ArtifactError: it is malformed.
        """
        try:
            index = cls.model_validate_json(text)
        except ValidationError as error:
            raise ArtifactError(f"{name} has an index that cannot be read: {_first(error)}") from error
        if any(_mask_depth(encoding) > MAX_MASK_DEPTH for encoding in index.encodings.values()):
            raise ArtifactError(f"{name} has an index with masks of masks deeper than {MAX_MASK_DEPTH} levels")
        return index


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _mask_depth(encoding: Encoding) -> int:
    if not isinstance(encoding, Bitmask):
        return 0
    return 1 + max(_mask_depth(encoding.mask), _mask_depth(encoding.values))
