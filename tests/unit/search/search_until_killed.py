"""A search that writes down the trials it has finished, and is killed meanwhile; run again it goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import pah_opt
from pah_opt.data import TensorSplit
from pah_opt.measure.settings import MeasureSettings
from pah_opt.progress import Progress
from pah_opt.search import loop
from pah_opt.splits import Data
from pah_opt.testing import tiny_vit

folder = Path(sys.argv[1])
model = tiny_vit(image=16)
pixels = torch.randn(300, 3, 16, 16, generator=torch.Generator().manual_seed(0))
labels = model(pixels).logits.argmax(dim=1)
names = tuple(map(str, range(10)))
splits = [TensorSplit(pixels[rows], labels[rows], names) for rows in (slice(0, 250), slice(250, 300))]
ended = loop.Loop._ended  # what is called when a trial is in the storage


def counted(self: loop.Loop, trial: object, record: loop.Record) -> loop.Record:
    found = ended(self, trial, record)
    (folder / "finished.new").write_text(json.dumps([each.to_data() for each in self.records]))
    (folder / "finished.new").rename(folder / "finished")
    return found


loop.Loop._ended = counted  # type: ignore[method-assign]
space = "steps: [{use: magnitude-pruning, with: {sparsity: {low: 0.1, high: 0.9}}}]"
trials = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
data = Data(test=splits[1], train=splits[0])
pah_opt.search(model, data, {"minimise": "size", "top1_drop_pp": 99}, space=space, out=folder, trials=trials,
               measure=MeasureSettings.quick(groups={"accuracy"}),
               progress=Progress())  # fmt: skip
