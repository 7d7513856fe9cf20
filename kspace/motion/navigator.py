"""The middle of k-space as a navigator: short spokes of few coils, and small images that foresee them.

Motion shows in the centre of k-space, where the signal is. Cut to it, a scan of 4 s is a few hundred kilobytes, and
what other spokes say of a spoke costs milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from kspace.coils import compression_matrix, espirit_maps
from kspace.equations import NormalEquations
from kspace.errors import ShapeError
from kspace.recon.locally_low_rank import LocallyLowRank
from kspace.recon.method import Reconstruction
from kspace.scan import RadialScan

WIDTH, COILS = 48, 4
"""Pixels along the longer side of the small images, and most virtual coils."""
_METHOD = LocallyLowRank(max_iterations=8, tolerance=5e-3)
_AGAIN = LocallyLowRank(max_iterations=3, tolerance=5e-3)


@dataclass(frozen=True)
class Short:
    """How spokes are cut short: the same for all batches of a slice.

    Parameters
    ----------
    matrix
        (rows, columns) of the small images, of the scan's field of view.
    kept
        First sample of a readout that is kept, and the one after the last.
    ratio
        What a position in cycles per pixel of the scan is multiplied by.
    coils
        (virtual coil, coil), orthonormal rows.
    """

    matrix: tuple[int, int]
    kept: tuple[int, int]
    ratio: tuple[float, float]
    coils: Tensor

    @classmethod
    def of(cls, spokes: RadialScan, *, width: int = WIDTH, n_coils: int = COILS) -> Short:
        """Choose for whitened spokes of one slice; a scan that is as small already keeps its matrix."""
        rows, columns = spokes.matrix
        share = min(1.0, width / max(rows, columns))
        small = (max(8, 2 * round(rows * share / 2)), max(8, 2 * round(columns * share / 2)))
        if share == 1.0:
            small = (rows, columns)
        ratio = (rows / small[0], columns / small[1])
        reach = (spokes.positions * torch.tensor(ratio)).abs().amax((0, 2)) if spokes.n_spokes else torch.zeros(1)
        inside = torch.nonzero(reach < 0.5)[:, 0]
        if not len(inside):
            raise ShapeError("the spokes", spokes.positions, "samples near the centre of k-space")
        first, last = int(inside[0]), int(inside[-1]) + 1
        # A dead or sparking spoke should not choose the coils.
        power = spokes.samples[..., first:last].abs().square().mean((1, 2))
        usual = (power <= 4 * power.median()) & (power > 0)
        n = min(n_coils, spokes.n_coils)
        return cls(small, (first, last), ratio, compression_matrix(spokes.samples[usual][..., first:last], n))

    def cut(self, spokes: RadialScan) -> RadialScan:
        """Return the spokes cut short, on the small grid, without their ECG and noise covariance."""
        first, last = self.kept
        positions = spokes.positions[:, first:last] * torch.tensor(self.ratio, dtype=spokes.positions.dtype)
        return replace(
            spokes,
            samples=self.coils.to(spokes.samples) @ spokes.samples[..., first:last],
            positions=positions.clamp(-0.5, 0.5),
            geometry=spokes.geometry.with_matrix(*self.matrix),
            noise_covariance=None,
        )

    def maps(self, maps: Tensor) -> Tensor:
        """Return the (virtual coil, y, x) maps of the small images that (coil, y, x) maps of the scan stand for."""
        mixed = (self.coils.to(maps) @ maps.reshape(len(maps), -1)).reshape(-1, *maps.shape[1:])
        parts = torch.view_as_real(mixed).permute(3, 0, 1, 2)
        small = interpolate(parts, self.matrix, mode="area")
        return torch.view_as_complex(small.permute(1, 2, 3, 0).contiguous())

    def image(self, images: Tensor) -> Tensor:
        """Return (frame, y, x) images of the scan on the small grid, limited to its band."""
        rows, columns = images.shape[-2:]
        top, left = rows // 2 - self.matrix[0] // 2, columns // 2 - self.matrix[1] // 2
        axes = (-2, -1)
        # Unitary transforms: a sample has the same value whichever grid it is foreseen from.
        spectrum = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(images, dim=axes), norm="ortho"), dim=axes)
        kept = torch.fft.ifftshift(spectrum[..., top : top + self.matrix[0], left : left + self.matrix[1]], dim=axes)
        small: Tensor = torch.fft.fftshift(torch.fft.ifft2(kept, norm="ortho"), dim=axes)
        return small


class Navigator:
    """Small images of a slice, whose spokes are grouped by time so that any group can be foreseen by the others.

    Parameters
    ----------
    spokes
        Short ones, see :meth:`Short.cut`.
    frame
        (spoke,) int64.
    group
        (spoke,) int64 from 0: spokes that are near in time, and likely to have suffered the same.
    n_frames
        Cardiac phases.
    noise_std
        Of one sample.
    trust
        (spoke,) in [0, 1].
    maps
        (coil, y, x) of the small images; estimated where they are not known.
    start
        Small images to begin with.
    """

    def __init__(
        self, spokes: RadialScan, frame: Tensor, group: Tensor, n_frames: int, *, noise_std: float,
        trust: Tensor | None = None, maps: Tensor | None = None, start: Tensor | None = None,
    ) -> None:  # fmt: skip
        self._noise_std = noise_std
        whole = NormalEquations(spokes.matrix, n_frames, spokes.n_coils, accuracy="fast")
        self._parts: dict[int, NormalEquations] = {}
        for number in torch.unique(group).tolist():
            mine = group == number
            part = whole.like(n_frames)
            part.add(spokes.samples[mine], spokes.positions[mine], frame[mine], None if trust is None else trust[mine])
            self._parts[number] = part
            for name in ("adjoint", "spectrum", "spokes", "energy", "weight", "squared_weight"):
                getattr(whole, name).add_(getattr(part, name))
        self.equations = whole
        self.maps = espirit_maps(whole.time_average(), iterations=20) if maps is None else maps
        begin = None if start is None else Reconstruction(start, spokes=float(whole.spokes.sum()))
        method = _METHOD if start is None else _AGAIN
        self._whole = method(whole, self.maps, noise_std=noise_std, start=begin)

    @property
    def image(self) -> Tensor:
        """(frame, y, x) complex, from all spokes."""
        return self._whole.image

    def without(self, group: int) -> Tensor:
        """Return the (frame, y, x) images from all spokes but those of a group."""
        rest = self.equations.less(self._parts[group])
        if float(rest.spokes.sum()) <= 0:
            return self.image
        return _AGAIN(rest, self.maps, noise_std=self._noise_std, start=self._whole).image
