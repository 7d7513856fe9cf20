from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter

from kspace.errors import ShapeError, UsageError
from kspace.quality.reverse import ReverseOptions, reverse_dice


def heart(
    middle: tuple[float, float] = (0.0, 0.0), size: float = 1.0, n: int = 48
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a ring with a bright cavity and a bright crescent beside it, and its labels."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n),) * 2, indexing="ij")
    y, x = (y - middle[0]) / size, (x - middle[1]) / size
    radius = torch.sqrt(y**2 + x**2)
    labels = torch.zeros(n, n, dtype=torch.uint8)
    labels[(torch.sqrt(y**2 + (x + 0.45) ** 2) < 0.4) & (radius >= 0.38)] = 3
    labels[radius < 0.38] = 2
    labels[radius < 0.25] = 1
    image = torch.tensor([0.3, 1.0, 0.4, 0.9])[labels.long()]
    return torch.from_numpy(gaussian_filter(image.numpy(), 0.7)), labels


def references() -> tuple[torch.Tensor, torch.Tensor]:
    kept = [heart((0.05, -0.04), 1.1), heart((-0.06, 0.03), 0.9), heart((0.0, 0.08), 1.0)]
    return torch.stack([image for image, _ in kept]), torch.stack([labels for _, labels in kept])


def test_true_labels_are_good_and_spoiled_ones_are_as_bad_as_they_are() -> None:
    image, labels = heart((0.03, 0.05), 1.05)
    good = reverse_dice(image, labels, *references())
    assert (good > torch.tensor([0.9, 0.85, 0.85])).all()
    small = labels.clone()
    small[heart((0.03, 0.05), 0.6)[1] != 1] = 0  # a cavity that is too small, and nothing else
    small[labels == 3] = 3
    poor = reverse_dice(image, small, *references())
    true = 2 * float(((small == 1) & (labels == 1)).sum()) / float((small == 1).sum() + (labels == 1).sum())
    assert float(poor[0]) == pytest.approx(true, abs=0.12)
    assert float(poor[1]) == 0.0
    assert float(poor[2]) > 0.85


def test_a_structure_that_nobody_has_cannot_be_judged() -> None:
    image, labels = heart()
    one = torch.where(labels == 3, 0, labels)
    found = reverse_dice(image, one, image[None], one[None])
    assert torch.isnan(found[2])
    assert float(found[0]) > 0.95


def test_a_scale_of_the_signal_changes_nothing() -> None:
    image, labels = heart((0.03, 0.05))
    one, other = (reverse_dice(scale * image, labels, *references()) for scale in (1.0, 300.0))
    torch.testing.assert_close(one, other, atol=0.02, rtol=0)


def test_shapes_and_options_are_checked() -> None:
    image, labels = heart()
    with pytest.raises(ShapeError, match="the labels"):
        reverse_dice(image, labels[:-1], *references())
    with pytest.raises(ShapeError, match="the reference images"):
        reverse_dice(image, labels, references()[0][:, 1:], references()[1])
    with pytest.raises(ShapeError, match="the reference labels"):
        reverse_dice(image, labels, references()[0], references()[1][:2])
    with pytest.raises(UsageError, match="nodes"):
        ReverseOptions(nodes=1)
