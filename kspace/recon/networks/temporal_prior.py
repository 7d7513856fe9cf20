"""What hearts look like and how they move, learnt: a residual network in space and time.

Convolutions are 2D and see the neighbouring frames because some of their channels come from these (temporal shift: Lin,
Gan, Han, ICCV 2019), on the circle that a heartbeat is. Images are folded 2 x 2 into channels and once more in the
middle of the network, so that it looks far at little cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle, silu

from kspace.errors import UsageError

_IN, _SECOND = 5, 2  # real channels: image, gradient, average over time; how second images differ
_FOLD = 4  # both ways


@dataclass(frozen=True)
class PriorOptions:
    """Size of the network.

    Parameters
    ----------
    channels
        At half resolution and at a quarter.
    depth
        Residual blocks at half resolution before and after, and at a quarter.
    second
        Whether it sees images of the same scan by another method.
    """

    channels: tuple[int, int] = (32, 64)
    depth: tuple[int, int] = (2, 3)
    second: bool = False

    def __post_init__(self) -> None:
        if len(self.channels) != 2 or min(self.channels) < 4 or any(c % 4 for c in self.channels):
            raise UsageError(f"channels of {self.channels}", expected="two multiples of 4")
        if len(self.depth) != 2 or min(self.depth) < 1:
            raise UsageError(f"a depth of {self.depth}", expected="two positive numbers")


def shifted_in_time(features: Tensor) -> Tensor:
    """Take a quarter of the channels of (frame, channel, y, x) from the frame before, and one from that after."""
    quarter = features.shape[1] // 4
    before, after, rest = features[:, :quarter], features[:, quarter : 2 * quarter], features[:, 2 * quarter :]
    return torch.cat((before.roll(1, 0), after.roll(-1, 0), rest), dim=1)


class _Residual(nn.Module):
    """Two convolutions around a nonlinearity, scaled and shifted by the conditions of each frame."""

    def __init__(self, channels: int, n_conditions: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(n_conditions, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():
            self.second.weight *= 0.5

    def forward(self, features: Tensor, conditions: Tensor) -> Tensor:
        gain, shift = self.modulation(conditions)[:, :, None, None].chunk(2, dim=1)
        inner = self.first(shifted_in_time(features)) * (1 + gain) + shift
        out: Tensor = features + self.second(shifted_in_time(silu(inner)))
        return out


class TemporalPrior(nn.Module):
    """A correction to images, from them, their misfit to the data, how others differ, and their average over time.

    Parameters
    ----------
    options
        Size.
    """

    def __init__(self, options: PriorOptions | None = None) -> None:
        super().__init__()
        self.options = options or PriorOptions()
        fine, coarse = self.options.channels
        n_fine, n_coarse = self.options.depth
        n_conditions = 32
        self.condition = nn.Sequential(nn.Linear(2, n_conditions), nn.SiLU(), nn.Linear(n_conditions, n_conditions))
        self.head = nn.Conv2d(4 * (_IN + _SECOND * self.options.second), fine, 3, padding=1)
        self.before = nn.ModuleList(_Residual(fine, n_conditions) for _ in range(n_fine))
        self.down = nn.Conv2d(4 * fine, coarse, 1)
        self.middle = nn.ModuleList(_Residual(coarse, n_conditions) for _ in range(n_coarse))
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.after = nn.ModuleList(_Residual(fine, n_conditions) for _ in range(n_fine))
        self.tail = nn.Conv2d(fine, 8, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: Tensor, gradient: Tensor, second: Tensor, average: Tensor, conditions: Tensor) -> Tensor:
        """Return the correction.

        Parameters
        ----------
        image, gradient, second
            (frame, y, x) complex, of level about 1 and of phase about 0, any size: the images, where they contradict
            the data, and images of the same scan by another method, whose errors are others
            (seen if the options say so).
        average
            (y, x) real.
        conditions
            (frame, 2), see :meth:`~kspace.recon.networks.least_squares.LeastSquares.conditions`.

        Returns
        -------
        (frame, y, x) complex.
        """
        rows, columns = image.shape[-2:]
        other = (second - image,) if self.options.second else ()
        seen = torch.view_as_real(torch.stack((image, gradient, *other))).permute(1, 0, 4, 2, 3).flatten(1, 2)
        planes = torch.cat((seen, average.expand_as(image.real)[:, None]), dim=1)
        planes = pad(planes, (0, -columns % _FOLD, 0, -rows % _FOLD), mode="replicate")
        embedded = self.condition(conditions)
        fine = self.head(pixel_unshuffle(planes, 2).contiguous(memory_format=torch.channels_last))
        fine = _through(self.before, fine, embedded)
        coarse = _through(self.middle, self.down(pixel_unshuffle(fine, 2)), embedded)
        fine = fine + pixel_shuffle(self.up(coarse), 2)
        fine = _through(self.after, fine, embedded)
        out = pixel_shuffle(self.tail(fine), 2)[..., :rows, :columns].to(image.real.dtype)
        return torch.complex(out[:, 0].contiguous(), out[:, 1].contiguous())


def _through(blocks: Sequence[nn.Module] | nn.ModuleList, features: Tensor, conditions: Tensor) -> Tensor:
    for block in blocks:
        features = block(features, conditions)
    return features
