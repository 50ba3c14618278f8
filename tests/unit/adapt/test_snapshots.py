from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.adapt.snapshots import (
    Checkpoint,
    digest_of,
    optimizer_moments,
    put_back,
    restore_moments,
    values_of,
)
from pah_opt.errors import ArtifactError


def checkpoint(identity: str = "this") -> Checkpoint:
    values = {"weight": torch.randn(2, 3), "count": torch.tensor(3)}
    return Checkpoint(identity, 5, {"losses": [0.1, 0.2]}, values, {}, {"weight": {"step": torch.tensor(5.0)}})


def test_values_are_copies_and_can_be_put_back() -> None:
    layer = nn.BatchNorm1d(3)
    kept = values_of(layer, ["weight"])
    assert set(kept) == {"weight", "running_mean", "running_var", "num_batches_tracked"}
    with torch.no_grad():
        layer.weight.add_(1.0)
        layer.running_mean.add_(1.0)  # type: ignore[union-attr]  # there is one
    put_back(layer, kept)
    assert torch.equal(layer.weight, torch.ones(3))
    assert torch.equal(layer.running_mean, torch.zeros(3))  # type: ignore[arg-type]  # as above


def test_checkpoint_reads_back_exactly(tmp_path: Path) -> None:
    written = checkpoint()
    written.save(tmp_path / "deep" / "state.safetensors")
    read = Checkpoint.load(tmp_path / "deep" / "state.safetensors")
    assert (read.identity, read.step, read.progress) == (written.identity, written.step, written.progress)
    assert all(torch.equal(read.values[name], value) for name, value in written.values.items())
    assert torch.equal(read.moments["weight"]["step"], torch.tensor(5.0))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["state.safetensors"]


def test_a_full_disk_leaves_the_last_checkpoint_and_nothing_half_written(tmp_path: Path, full_disk: Any) -> None:
    path = tmp_path / "state.safetensors"
    checkpoint().save(path)
    before = path.read_bytes()
    large = Checkpoint("this", 6, {}, {"weight": torch.zeros(3000)}, {}, {})
    with pytest.raises(ArtifactError, match=r"cannot be written .*File too large.*free some space"), full_disk():
        large.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_checkpoint_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    checkpoint().save(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ArtifactError, match=r"state.safetensors is damaged .*remove it to start again"):
        Checkpoint.load(path)


def test_checkpoint_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("pah_opt.adapt.snapshots.FORMAT", 99)
        checkpoint().save(path)
    with pytest.raises(ArtifactError, match="has format 99, this version reads 1"):
        Checkpoint.load(path)


def test_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="belongs to another training"):
        checkpoint("that").check("this", tmp_path)


def test_digest_follows_names_and_values() -> None:
    one = {"a": torch.zeros(2), "b": torch.ones(2)}
    assert digest_of(one) == digest_of(dict(reversed(one.items())))
    assert digest_of(one) != digest_of({"a": torch.ones(2), "b": torch.zeros(2)})
    assert digest_of({"a": torch.tensor(1.0)}) != digest_of({"a": torch.tensor(2.0)})


def test_digest_follows_every_bit() -> None:
    """Printed, single numbers have four digits."""
    one, other = torch.tensor(1.10001), torch.tensor(1.10002)
    assert repr(one) == repr(other)
    assert digest_of({"a": one}) != digest_of({"a": other})
    assert digest_of({"a": one[None]}) != digest_of({"a": other[None]})
    assert digest_of({"a": torch.ones(2, 3).T}) == digest_of({"a": torch.ones(3, 2)})
    assert digest_of({"a": torch.ones(1).expand(3)}) == digest_of({"a": torch.ones(3)})


def test_optimizer_goes_on_as_if_it_had_never_stopped() -> None:
    def stepped(layer: nn.Linear, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        optimizer.zero_grad()
        layer(torch.ones(1, 2)).square().sum().backward()
        optimizer.step()
        return layer.weight.detach().clone()

    torch.manual_seed(0)
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    for _ in range(3):
        stepped(layer, optimizer)
    twin = nn.Linear(2, 2)
    twin.load_state_dict(layer.state_dict())
    fresh = torch.optim.AdamW(twin.parameters(), lr=0.1)
    moments = copy.deepcopy(optimizer_moments(optimizer, dict(layer.named_parameters())))
    restore_moments(fresh, dict(twin.named_parameters()), moments)
    assert torch.equal(stepped(layer, optimizer), stepped(twin, fresh))
