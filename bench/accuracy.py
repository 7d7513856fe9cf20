"""Measure the encoding operator's errors against an exact float64 transform: ``python bench/accuracy.py``.

192 x 192, 13 golden-angle spokes of 384 samples, 8 coils, 2 frames, complex64: the table of docs/reconstruction.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kspace.encoding import Encoding
from kspace.nufft import ACCURACIES, exact_adjoint, exact_transform
from kspace.trajectory import golden_angles, radial_positions

MATRIX, SPOKES, COILS, FRAMES = (192, 192), 13, 8, 2


def relative(got: Tensor, expected: Tensor) -> float:
    """Return ||got - expected|| / ||expected||."""
    difference = torch.linalg.vector_norm(got.to(torch.complex128) - expected)
    return float(difference / torch.linalg.vector_norm(expected))


def main() -> None:
    """Print one row per preset and engine."""
    generator = torch.Generator().manual_seed(0)
    positions = radial_positions(golden_angles(FRAMES * SPOKES), 2 * MATRIX[1]).reshape(FRAMES, SPOKES, -1, 2)
    maps = torch.randn((COILS, *MATRIX), dtype=torch.complex64, generator=generator)
    maps = maps / maps.abs().square().sum(0).sqrt()
    x = torch.randn((FRAMES, *MATRIX), dtype=torch.complex64, generator=generator)
    s = torch.randn((FRAMES, COILS, SPOKES, 2 * MATRIX[1]), dtype=torch.complex64, generator=generator)
    flat = positions.reshape(FRAMES, -1, 2)
    forward = torch.stack([exact_transform(x[f] * maps, flat[f]) for f in range(FRAMES)]).reshape(s.shape)

    def back(samples: Tensor) -> Tensor:
        coil_images = [exact_adjoint(samples[f].reshape(COILS, -1), flat[f], MATRIX) for f in range(FRAMES)]
        return (torch.stack(coil_images) * maps.conj()).sum(1)

    adjoint, normal = back(s), back(forward)
    print("| preset | engine | forward | adjoint | dot test | normal, gridded | normal, Toeplitz |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for preset in ACCURACIES:
        for engine in ("finufft", "torchkbnufft"):
            encoding = Encoding(positions, maps, accuracy=preset, engine=engine)  # type: ignore[arg-type]
            fx, fhs = encoding.forward(x), encoding.adjoint(s)
            left = torch.vdot(s.flatten().to(torch.complex128), fx.flatten().to(torch.complex128))
            right = torch.vdot(fhs.flatten().to(torch.complex128), x.flatten().to(torch.complex128))
            dot = float((left - right).abs() / (torch.linalg.vector_norm(fx) * torch.linalg.vector_norm(s)))
            errors = [relative(fx, forward), relative(fhs, adjoint), dot]
            errors += [relative(encoding.normal(x, form), normal) for form in ("gridded", "toeplitz")]  # type: ignore[arg-type]
            print(f"| {preset} | {engine} | " + " | ".join(f"{e:.1e}" for e in errors) + " |", flush=True)


if __name__ == "__main__":
    main()
