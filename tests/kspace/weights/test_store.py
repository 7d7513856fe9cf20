from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save, save_file
from torch import nn

from kspace.errors import InputError, ShapeError, SpokewiseError, UsageError
from kspace.weights import store
from kspace.weights.card import ModelCard
from kspace.weights.store import list_models, load_model, load_weights, save_model, verify

CARD = ModelCard(
    name="small-net",
    task="recon",
    description="A net for tests.",
    architecture="Sequential",
    options={"width": 4},
    training_data="None.",
    seed=1,
    commit="0000000",
    cost="None.",
    figures={"psnr_db": 31.5, "by_split": {"test": [1, 2]}},
    limits=["Does nothing."],
)


def network(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(network(), CARD, tmp_path)
    return tmp_path


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "small-net.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def replace_weights(folder: Path, content: bytes) -> None:
    """Other weights, with a card that vouches for them."""
    (folder / "small-net.safetensors").write_bytes(content)
    rewrite(folder, bytes=len(content), sha256=sha256(content).hexdigest())


def refused(folder: Path, match: str, kind: type[SpokewiseError] = InputError) -> None:
    with pytest.raises(kind, match=match) as caught:
        load_weights("small-net", folder)
    assert "\n" not in str(caught.value)
    assert next(verdict.problem for verdict in verify(folder))


def test_a_model_comes_back_as_it_was(folder: Path) -> None:
    card, tensors = load_weights("small-net", folder)
    expected = network().state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], value) for key, value in expected.items())
    assert card.n_parameters == 3 * 4 + 4 + 8 + 4 + 1
    assert card.bytes == (folder / "small-net.safetensors").stat().st_size
    assert card.model_copy(update={"sha256": "", "bytes": 0, "n_parameters": 0}) == CARD
    assert list_models(folder) == (card,)
    assert [(verdict.name, verdict.problem) for verdict in verify(folder)] == [("small-net", "")]


def test_a_network_is_filled(folder: Path) -> None:
    other = network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    load_model("small-net", other, folder)
    assert not other.training
    assert torch.equal(other.state_dict()["0.weight"], network().state_dict()["0.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype, tmp_path: Path) -> None:
    full = save_model(network(), CARD, tmp_path)
    half = save_model(network(), CARD, tmp_path, dtype=dtype)
    assert half.bytes < full.bytes
    _, tensors = load_weights("small-net", tmp_path)
    assert tensors["0.weight"].dtype == torch.float32
    assert torch.equal(tensors["0.weight"], network().state_dict()["0.weight"].to(dtype).float())
    assert tensors["1.num_batches_tracked"].dtype == torch.int64


def test_tampered_weights_are_refused(folder: Path) -> None:
    path = folder / "small-net.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused(folder, "has the SHA-256")


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_weights_are_refused(kept: int, folder: Path) -> None:
    path = folder / "small-net.safetensors"
    content = path.read_bytes()[:kept]
    path.write_bytes(content)
    refused(folder, "bytes; expected")
    replace_weights(folder, content)
    refused(folder, "cannot be read")


class Attack:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("raise SystemExit('a pickle was run')",)


def test_pickles_are_refused_whatever_their_name(folder: Path) -> None:
    for content in (pickle.dumps(Attack()), b"PK\x03\x04" + pickle.dumps(Attack()), b"\xff" * 64):
        replace_weights(folder, content)
        refused(folder, "cannot be read")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (torch.tensor([1.0, float("nan")]), "0.weight is not finite"),
        (torch.tensor([float("inf")], dtype=torch.bfloat16), "0.weight is not finite"),
        (torch.ones(2, dtype=torch.float64), "0.weight is torch.float64"),
        (torch.ones(2, dtype=torch.bool), "0.weight is torch.bool"),
    ],
)
def test_other_numbers_are_refused(value: torch.Tensor, match: str, folder: Path) -> None:
    replace_weights(folder, save({"0.weight": value}))
    refused(folder, match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sha256": "abc"}, "sha256: String should match"),
        ({"sha256": ""}, "names no SHA-256"),
        ({"name": "other"}, "is the card of other; expected small-net"),
        ({"run": "import os"}, "run: Extra inputs"),
        ({"bytes": -3}, "bytes: Input should be"),
        ({"bytes": 12}, "bytes; expected 12, by its card"),
        ({"limits": "none"}, "limits: Input should be"),
    ],
)
def test_other_cards_are_refused(changes: dict[str, Any], match: str, folder: Path) -> None:
    rewrite(folder, **changes)
    refused(folder, match)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"name": "small-net"}', "\ud800"])
def test_what_is_no_card_is_refused(text: str, folder: Path) -> None:
    (folder / "small-net.json").write_bytes(text.encode(errors="surrogatepass"))
    refused(folder, "small-net.json cannot be read")


def test_large_files_are_refused_unread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_BYTES", 50)
    refused(folder, "expected at most 50")
    with pytest.raises(InputError, match="expected at most 50"):
        save_model(network(), CARD, folder)
    monkeypatch.setattr(store, "MAX_CARD_BYTES", 20)
    refused(folder, "expected at most 20")


@pytest.mark.parametrize("name", ["none", "../small-net", "small-net\n", "/etc/passwd", "", "Small-Net"])
def test_other_names_are_refused(name: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no model .*; expected small-net"):
        load_weights(name, folder)


def test_missing_weights_and_strangers_are_named(folder: Path) -> None:
    (folder / "small-net.safetensors").rename(folder / "stranger.safetensors")
    (folder / "model.pt").write_bytes(pickle.dumps(Attack()))
    problems = {verdict.name: verdict.problem for verdict in verify(folder)}
    assert "small-net.safetensors does not exist" in problems["small-net"]
    assert "weights without a card" in problems["stranger.safetensors"]
    assert "not part of a model" in problems["model.pt"]


def test_another_network_is_refused(folder: Path) -> None:
    with pytest.raises(
        ShapeError, match=r"0\.bias of the model small-net has shape \(4,\); expected the network's \(5,\)"
    ):
        load_model("small-net", network(width=5), folder)
    with pytest.raises(InputError, match=r"has, and the network has not, 1\.bias"):
        load_model("small-net", nn.Sequential(nn.Linear(3, 4)), folder)
    with pytest.raises(InputError, match=r"lacks 3\.bias"):
        load_model("small-net", nn.Sequential(*network(), nn.Linear(1, 1)), folder)


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    broken = network()
    with torch.no_grad():
        next(broken.parameters()).fill_(1e6)
    with pytest.raises(InputError, match=r"0\.weight is not finite"):
        save_model(broken, CARD, tmp_path, dtype=torch.float16)
    with pytest.raises(UsageError, match=r"torch\.float64"):
        save_model(network(), CARD, tmp_path, dtype=torch.float64)
    with pytest.raises(ValidationError):
        ModelCard(**{**CARD.model_dump(), "name": "../up"})
    assert not list(tmp_path.iterdir())


def test_the_shipped_models_are_whole() -> None:
    assert [verdict for verdict in verify() if verdict.problem] == []
    assert len(list_models()) == len(list(store.FOLDER.glob("*.safetensors")))


def test_tied_weights_can_be_kept(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert save_model(tied, CARD, tmp_path).n_parameters == 9 + 6
    load_model("small-net", nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), tmp_path)


def test_plain_safetensors_need_a_card(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="there are no models here"):
        load_weights("a", tmp_path)
