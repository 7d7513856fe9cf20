"""A U-Net that cleans gridded cines without looking at the data again: the plain post-processor to compare with.

A residual 2D U-Net (Ronneberger et al., MICCAI 2015) sees every frame with its neighbours in time as channels. Nothing
holds its output to what was measured.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kspace.errors import ShapeError, UsageError


class CineUNet(nn.Module):
    """Image in, image out: the middle frame of a few, corrected.

    What has no meaning in a gridded image is taken out before and put back after, so that the network need not learn
    it: the scale (mean magnitude, weighted by the squared magnitude, so that it hardly depends on how much air lies
    around the body and a patch of a cine is seen as the whole is) and the phase (of every pixel's average over time).
    Hence f(a x) = a f(x) for any complex a, and for any fixed map of phases; and a cine that starts at another frame
    gives the same frames in that order, as time is a circle.

    With the defaults it has 762,322 parameters. Untrained it returns what goes in.

    Parameters
    ----------
    neighbours
        Frames that it sees, odd; a cine may have fewer, as time is circular.
    features
        Channels at full resolution; each level below has twice as many.
    levels
        How often the resolution is halved.

    Raises
    ------
    UsageError
        When the number of neighbours is even, or a number is too small.
    """

    def __init__(self, neighbours: int = 5, features: int = 20, levels: int = 3) -> None:
        super().__init__()
        if neighbours < 1 or neighbours % 2 == 0:
            raise UsageError(f"{neighbours} neighbours", expected="an odd number: a middle and as many on each side")
        if features < 1 or levels < 0:
            raise UsageError(f"{features} features, {levels} levels", expected="1 feature or more, 0 levels or more")
        self.neighbours, self.levels = neighbours, levels
        widths = [features * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([2 * neighbours, *widths], widths, strict=False))
        self.up = nn.ModuleList(_block(3 * width, width) for width in widths[:-1])
        self.out = nn.Conv2d(features, 2, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Return corrected cines.

        Parameters
        ----------
        image
            (..., frame, y, x) complex, gridded; any number of frames, rows and columns.

        Returns
        -------
        As the input.

        Raises
        ------
        ShapeError
            When there is no axis of frames or the image is not complex.
        """
        if image.ndim < 3 or not image.is_complex():
            raise ShapeError("the image", image, "(..., frame, y, x) and complex")
        scale = _level(image)
        phase = torch.sgn(image.mean(-3, keepdim=True))
        phase = torch.where(phase == 0, torch.ones_like(phase), phase)
        flat = image / scale.clamp_min(torch.finfo(scale.dtype).tiny) * phase.conj()
        half = self.neighbours // 2
        seen = torch.stack([torch.roll(flat, -k, -3) for k in range(-half, half + 1)], -3)
        # (..., frame, neighbour, y, x), each neighbour as real and imaginary part
        channels = torch.view_as_real(seen).movedim(-1, -3).reshape(-1, 2 * self.neighbours, *image.shape[-2:])
        correction = self._network(channels).reshape(*image.shape[:-2], 2, *image.shape[-2:])
        real, imaginary = correction.to(scale.dtype).unbind(-3)
        return (flat + torch.complex(real, imaginary)) * phase * scale

    def _network(self, x: Tensor) -> Tensor:
        """Return (batch, 2, y, x) for (batch, channel, y, x) of any size, padded at the edges to halve evenly."""
        rows, columns = x.shape[-2:]
        step = 2**self.levels
        x = functional.pad(x, (0, -columns % step, 0, -rows % step), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)  # a third faster on a CPU
        kept = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else functional.avg_pool2d(x, 2))
            kept.append(x)
        for level in reversed(range(self.levels)):
            wide = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self.up[level](torch.cat((wide, kept[level]), 1))
        result: Tensor = self.out(x)
        return result[..., :rows, :columns]


def _level(image: Tensor) -> Tensor:
    """Return (..., 1, 1, 1), the brightness of what is bright in (..., frame, y, x) images; 0 for nothing."""
    everywhere, magnitude = (-3, -2, -1), image.abs()
    tiny = torch.finfo(magnitude.dtype).tiny
    highest = magnitude.amax(everywhere, keepdim=True)
    relative = magnitude / highest.clamp_min(tiny)  # cubes of what is small would vanish
    cubes, squares = (relative.pow(n).sum(everywhere, keepdim=True) for n in (3, 2))
    return cubes / squares.clamp_min(tiny) * highest


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.SiLU(), nn.Conv2d(after, after, 3, padding=1), nn.SiLU()
    )
