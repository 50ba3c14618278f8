"""What quantized tensors carry besides plain tensors (types, block sizes, settings) as JSON data and back.

Only what is listed here is ever made from a file: numbers, text, tensor types, and a few plain data classes and
enumerations of torchao. Nothing is looked up by a name that a file chooses freely.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

import torch

from pah_opt.errors import ArtifactError
from pah_opt.storage.backends import torchao_types

TENSOR_TYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)
}
"""Every torch.dtype by name, such as ``int4``."""


def to_json(value: Any) -> Any:
    """Return JSON data for ``value``.

    Raises:
        ArtifactError: it is of a kind that cannot be stored.
    """
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, enum.Enum):
        return {"enum": type(value).__name__, "name": value.name}
    if isinstance(value, (list, tuple, dict)) and not hasattr(value, "_fields"):
        return _container(value)
    return _record(value)


def _container(value: list[Any] | tuple[Any, ...] | dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {"dict": {key: to_json(item) for key, item in value.items()}}
    return {type(value).__name__ if isinstance(value, list) else "tuple": [to_json(item) for item in value]}


def _record(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {item.name: to_json(getattr(value, item.name)) for item in dataclasses.fields(value)}
    elif hasattr(value, "_asdict"):
        fields = {key: to_json(item) for key, item in value._asdict().items()}
    else:
        raise ArtifactError(f"{value!r}, a {type(value).__name__}, cannot be stored as part of a quantized tensor")
    return {"record": type(value).__name__, "fields": fields}


def from_json(data: Any) -> Any:
    """Undo :func:`to_json`.

    Raises:
        ArtifactError: the data is not what :func:`to_json` writes, or names a type that is not on the list.
    """
    if not isinstance(data, Mapping):
        return data
    try:
        return _from_mapping(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"a quantized tensor is described wrongly: {error!r}") from error


def _from_mapping(data: Mapping[str, Any]) -> Any:
    if "dtype" in data:
        return TENSOR_TYPES[data["dtype"]]
    if "dict" in data:
        return {key: from_json(item) for key, item in data["dict"].items()}
    if "list" in data or "tuple" in data:
        items = [from_json(item) for item in data.get("list", data.get("tuple"))]
        return items if "list" in data else tuple(items)
    if "enum" in data:
        return torchao_types(enum.Enum)[data["enum"]][data["name"]]
    return torchao_types(object)[data["record"]](**{key: from_json(item) for key, item in data["fields"].items()})
