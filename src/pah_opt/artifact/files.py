"""The files of a saved artifact: their names, and what else may lie beside them."""

from __future__ import annotations

import re

from pah_opt.report import files

MANIFEST = "manifest.json"
"""Size and checksums of every other file; and of itself."""
DESCRIPTION = "artifact.json"
"""How the model was made, and what is needed to rebuild it."""
WEIGHTS = "model.safetensors"
COMPRESSED_WEIGHTS = "model.safetensors.zst"
EXAMPLES = "examples.safetensors"
PROCESSOR = "preprocessor_config.json"
"""Where transformers looks for an image processor."""
REPORT = files.REPORT
CARD = "README.md"

KNOWN = frozenset({DESCRIPTION, WEIGHTS, COMPRESSED_WEIGHTS, EXAMPLES, PROCESSOR, REPORT})
"""Files that a manifest may list."""

MAX_MANIFEST_BYTES = 8 * 2**20
MAX_JSON_BYTES = 64 * 2**20

_BESIDE = re.compile(r"README\.md|LICENSE[.\w-]*|\.gitattributes|\.gitignore|\.git|\.cache|\.DS_Store")


def may_lie_beside(name: str) -> bool:
    """Tell whether a file that no manifest lists may be in the folder: documents, and what hubs and systems add.

    Nothing in such files is ever read by this library; they can be edited freely.
    """
    return _BESIDE.fullmatch(name) is not None
