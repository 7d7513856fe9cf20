"""Gradient delays: where radial spokes truly lie, found from the spokes themselves.

A spoke of unit direction n is displaced by S n samples of its readout, S = [[dx, dxy], [dxy, dy]] (Block and Uecker,
ISMRM 2011; Rosenzweig, Holme and Uecker, MRM 81:1898, 2019). A readout whose centre is off by a common amount is the
case dx = dy. The delays are those under which the spokes agree best with some image: :class:`CentralFit` finds it, and
Gauss-Newton steps move the spokes. An object off the centre is a linear phase, which that image holds as well as any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError, UsageError
from kspace.nufft import Nufft
from kspace.scan import RadialScan

LARGEST = 8.0
"""Samples beyond which a displacement is no gradient delay."""
_SEARCHED = 6.0  # samples that the estimate looks
_FOLDS = 5
_LIKELY = 14.16  # chi squared of three parameters at three standard deviations (p = 0.0027)
_WORTH = 0.05  # samples
_WORTH_GAIN = 0.1  # 0.06 samples lower the error of foreseeing simulated spokes by 0.17; what is no delay, by less
_LOST = 0.3  # residual with which a search has gone astray; beating hearts at SNR 30 leave 0.04 to 0.13
_FEWEST = 8  # spokes


@dataclass(frozen=True)
class GradientDelays:
    """Displacement of spokes along both axes and its cross term, in samples of the readout.

    Parameters
    ----------
    x, y, xy
        The entries of S: a spoke of direction (nx, ny) lies (x nx + xy ny, xy nx + y ny) samples beyond where it is
        reported to be, as :func:`simulate.lines.spoke_lines` has it.

    Raises
    ------
    UsageError
        When one is not finite or larger than :data:`LARGEST`.
    """

    x: float = 0.0
    y: float = 0.0
    xy: float = 0.0

    def __post_init__(self) -> None:
        if not all(abs(value) <= LARGEST for value in (self.x, self.y, self.xy)):
            raise UsageError(
                f"gradient delays of {self.x:g}, {self.y:g}, {self.xy:g} samples", expected=f"within {LARGEST:g}"
            )

    def __bool__(self) -> bool:
        return any((self.x, self.y, self.xy))

    def __str__(self) -> str:
        return f"{self.x:.3g},{self.y:.3g},{self.xy:.3g}"

    @property
    def largest(self) -> float:
        """Largest displacement of any spoke, in samples."""
        matrix = torch.tensor([[self.x, self.xy], [self.xy, self.y]], dtype=torch.float64)
        return float(torch.linalg.matrix_norm(matrix, ord=2))

    def apply(self, positions: Tensor) -> Tensor:
        """Return where spokes reported at (spoke, readout, 2) positions truly lie; order (ky, kx), any unit."""
        direction, step = spoke_steps(positions)
        moved = positions.double() + _displacement(self._vector(positions), direction, step)[:, None]
        return moved.to(positions.dtype)

    def _vector(self, like: Tensor) -> Tensor:
        return torch.tensor([self.x, self.y, self.xy], dtype=torch.float64, device=like.device)


NO_DELAYS = GradientDelays()


def parse_delays(text: str) -> GradientDelays | Literal["auto"]:
    """Return what ``auto``, ``off`` or ``dx,dy,dxy`` stands for.

    Raises
    ------
    UsageError
        When the text is none of these.
    """
    if text == "auto":
        return "auto"
    if text == "off":
        return NO_DELAYS
    try:
        x, y, xy = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--delays {text!r}", expected="auto, off, or three numbers of samples: dx,dy,dxy") from None
    return GradientDelays(x, y, xy)


def correct(scan: RadialScan, delays: GradientDelays) -> RadialScan:
    """Put spokes where they truly lie.

    What a displacement pushes out of the band of the grid would wrap around: as many samples as the largest
    displacement are left out at either end of every readout, whatever its direction, so that batches stay alike.

    Raises
    ------
    InputError
        When the readout is shorter than that.
    """
    if not delays or not scan.n_spokes:
        return scan
    lost = math.ceil(delays.largest - 1e-9)
    if scan.n_readout - 2 * lost < 2:
        raise InputError(f"delays of {delays} samples on readouts of {scan.n_readout}", expected="longer readouts")
    kept = slice(lost, scan.n_readout - lost)
    return replace(scan, samples=scan.samples[..., kept], positions=delays.apply(scan.positions)[:, kept])


@dataclass(frozen=True)
class DelayEstimate:
    """What was found, and how far to believe it.

    Parameters
    ----------
    delays
        The estimate.
    error
        Standard errors of (x, y, xy) in samples, from the scatter of spokes.
    chi_squared
        Of the three delays against none; 14.2 corresponds to three standard deviations.
    gain, gain_error
        Share by which the delays lower the squared error of foreseeing spokes that were left out, and its standard
        error.
    residual
        Root of the share of the energy of the centre of k-space that no image explains.
    iterations
        Gauss-Newton steps.
    """

    delays: GradientDelays
    error: tuple[float, float, float]
    chi_squared: float
    gain: float
    gain_error: float
    residual: float
    iterations: int

    @property
    def significant(self) -> bool:
        """Whether to apply it: over three standard errors and 0.05 samples, and spokes are foreseen 10 % better by it.

        Other faults than delays, such as a phase of each spoke, may look like delays that are significant, but hardly
        help to foresee spokes.
        """
        found = max(abs(self.delays.x), abs(self.delays.y), abs(self.delays.xy))
        likely = self.chi_squared > _LIKELY and self.residual < _LOST
        return likely and found > _WORTH and self.gain > max(_WORTH_GAIN, 3 * self.gain_error)

    @property
    def accepted(self) -> GradientDelays:
        """The delays where they are significant, else none."""
        return self.delays if self.significant else NO_DELAYS

    def record(self) -> dict[str, object]:
        """Return it as it goes into JSON."""
        return {
            "estimate": [self.delays.x, self.delays.y, self.delays.xy],
            "standard_error": list(self.error),
            "significant": self.significant,
            "foreseeing_gain": self.gain,
        }

    def describe(self) -> str:
        """Say it in a line."""
        names = zip(("x", "y", "xy"), (self.delays.x, self.delays.y, self.delays.xy), self.error, strict=True)
        found = ", ".join(f"{name} {value:+.3f} ± {error:.3f}" for name, value, error in names)
        return f"gradient delays {found} samples: {'corrected' if self.significant else 'not significant, left alone'}"


def estimate_delays(
    scan: RadialScan, *, radius: float = 6.0, damping: float = 1e-2, most_spokes: int = 600, max_iterations: int = 25
) -> DelayEstimate:
    """Find the delays under which spokes agree with each other.

    Variable projection: for given delays the best image is a linear problem, and Gauss-Newton steps of the delays take
    into account how the image would follow. Standard errors are those of the scores of whole spokes (a sandwich), so
    that a beating heart counts as scatter.

    Parameters
    ----------
    scan
        Whitened spokes, of one or more slices that share their delays.
    radius, damping
        See :class:`CentralFit`.
    most_spokes
        At most so many, the first ones, of each frame or slice are looked at; of at most four of these.
    max_iterations
        At most so many steps.

    Raises
    ------
    InputError
        When there are fewer than 8 spokes, no signal, or all spokes are parallel.
    """
    rough = CentralFit(scan, radius=radius, damping=damping, most_spokes=60, most_groups=1)
    start, near, _ = _descend(rough, torch.zeros(3, dtype=torch.float64), 8)
    if math.sqrt(near.cost) > _LOST / 2:
        start, _, _ = min((_descend(rough, far, 5) for far in _promising(rough)), key=lambda end: end[1].cost)
    fit = CentralFit(
        scan,
        radius=radius,
        damping=damping,
        most_spokes=most_spokes,
        most_groups=4,
        searched=GradientDelays(*_bounded(start)).largest + 1.5,
    )
    best, found, iterations = _descend(fit, start, max_iterations)
    inverse = torch.linalg.pinv(found.curvature, hermitian=True, rtol=1e-10)
    covariance = inverse @ (found.scores @ found.scores.T) @ inverse
    if not bool((torch.linalg.eigvalsh(found.curvature) > 1e-9 * found.curvature.trace()).all()):
        raise InputError("the spokes do not tell their delays", expected="spokes of different directions")
    before, after = fit.left_out(torch.zeros_like(best)), fit.left_out(best)
    gain, total = before - after, max(float(before.sum()), 1e-300)
    x, y, xy = (float(value) for value in best)
    return DelayEstimate(
        delays=GradientDelays(x, y, xy),
        error=tuple(float(v) for v in covariance.diagonal().sqrt()),  # type: ignore[arg-type]
        chi_squared=float(best @ torch.linalg.pinv(covariance, hermitian=True) @ best),
        gain=float(gain.sum()) / total,
        gain_error=float(gain.std()) * math.sqrt(len(gain)) / total,
        residual=math.sqrt(found.cost),
        iterations=iterations,
    )


def _promising(fit: CentralFit, count: int = 6) -> list[Tensor]:
    """Return where else to start from, as far from the truth small steps lead elsewhere."""
    grid = torch.tensor([0.0, -2.0, 2.0, -4.0, 4.0], dtype=torch.float64)
    far = torch.cartesian_prod(grid, grid, grid[:3])
    ranked: list[Tensor] = sorted(far, key=lambda delays: fit.evaluate(delays, slopes=False).cost)
    return ranked[:count]


def _descend(fit: CentralFit, start: Tensor, most: int) -> tuple[Tensor, Agreement, int]:
    """Take damped Gauss-Newton steps; return where they end, how well spokes agree there, and the number of steps."""
    best, found, trust, iteration = start, fit.evaluate(start), 1e-12, 0
    while iteration < most:
        iteration += 1
        damped = found.curvature + trust * torch.diag(found.curvature.diagonal())
        step = torch.linalg.pinv(damped, hermitian=True, rtol=1e-12) @ found.scores.sum(1)
        size = float(step.abs().max())
        step = step * min(1.0, 1.5 / max(size, 1e-12))
        tried = fit.evaluate(best + step)
        if tried.cost <= found.cost:
            best, found, trust = best + step, tried, trust / 10
        else:
            trust = max(10 * trust, 1e-2)
        if size < 5e-4:
            break
    return best, found, iteration


def find_delays(
    scan: RadialScan, wanted: GradientDelays | Literal["auto"]
) -> tuple[GradientDelays, DelayEstimate | None]:
    """Return the delays to correct, and the estimate behind them where one was possible.

    With ``auto``, spokes that cannot tell their delays are left alone.
    """
    if wanted != "auto":
        return wanted, None
    try:
        estimate = estimate_delays(scan)
    except InputError:
        return NO_DELAYS, None
    return estimate.accepted, estimate


def spoke_steps(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return (spoke, 2) unit directions and (spoke,) distances of neighbouring samples of (spoke, readout, 2)."""
    if positions.ndim != 3 or positions.shape[-1] != 2 or positions.shape[-2] < 2:
        raise ShapeError("positions", positions, "(spoke, readout, 2) with at least two samples on a spoke")
    span = (positions[:, -1] - positions[:, 0]).double()
    length = torch.linalg.vector_norm(span, dim=-1)
    if not bool((length > 0).all()):
        raise InputError("a spoke has no length", expected="samples at different positions")
    return span / length[:, None], length / (positions.shape[1] - 1)


def _bases(direction: Tensor, step: Tensor) -> Tensor:
    """Return (3, spoke, 2), order (ky, kx): how a spoke moves with x, y and xy."""
    ny, nx = direction[:, 0], direction[:, 1]
    none = torch.zeros_like(nx)
    along = torch.stack((none, nx, ny, none, nx, ny)).reshape(3, 2, -1)
    return along.transpose(1, 2) * step[:, None]


def _displacement(delays: Tensor, direction: Tensor, step: Tensor) -> Tensor:
    return torch.einsum("d,dsk->sk", delays, _bases(direction, step))


@dataclass(frozen=True)
class Agreement:
    """How well spokes agree under given delays.

    Parameters
    ----------
    cost
        Share of the energy that no image explains, its damping included.
    scores, curvature
        (3, spoke) and (3, 3) float64: the negative half gradient of the cost by spoke, and the Gauss-Newton matrix.
    """

    cost: float
    scores: Tensor
    curvature: Tensor


class CentralFit:
    """The images that explain the centre of k-space best, one per frame (or slice) and coil.

    Parameters
    ----------
    scan
        Whitened spokes. Where the source fixes frames and each has 20 spokes, each gets its own images, so that
        contrast may change between them; otherwise a beating heart is averaged over.
    radius
        Cycles per field of view up to which samples count.
    damping
        Tikhonov weight of the images relative to the mean diagonal of the normal matrix.
    most_spokes
        At most so many, the first ones, of each group.
    most_groups
        At most so many groups, evenly spread; all of them by default.
    searched
        Largest displacement in samples that can be evaluated; more takes more pixels.
    """

    def __init__(
        self,
        scan: RadialScan,
        *,
        radius: float = 6.0,
        damping: float = 1e-2,
        most_spokes: int = 10_000,
        most_groups: int | None = None,
        searched: float = _SEARCHED,
    ) -> None:
        spoken = (scan.samples.abs() > 0).flatten(1).any(1)
        self.groups = _groups(scan, spoken, most_spokes, most_groups)
        self.n_spokes = sum(len(group) for group in self.groups)
        if self.n_spokes < _FEWEST:
            raise InputError(f"{self.n_spokes} spokes with signal", expected=f"at least {_FEWEST}")
        self.direction, self.step = spoke_steps(scan.positions)
        distance = torch.linalg.vector_norm(scan.positions.double(), dim=-1)
        central = torch.nonzero((distance <= radius / max(scan.matrix) + 1e-9).any(0))[:, 0]
        if len(central) < 3:
            raise InputError("the spokes do not sample the centre of k-space", expected="three samples there")
        self.window = slice(int(central[0]), int(central[-1]) + 1)
        self.positions = scan.positions[:, self.window].double()
        samples = scan.samples[:, :, self.window].to(torch.complex128)
        self.samples = samples / torch.linalg.vector_norm(samples[torch.cat(self.groups)])
        self._damping, self._searched = damping, searched
        # Few pixels, as many as the disc and the displacements searched need, over the whole field of view.
        reach = float(self.positions.abs().max()) + searched * float(self.step.max())
        self._grid = (2 * math.ceil(reach * scan.matrix[0] + 2), 2 * math.ceil(reach * scan.matrix[1] + 2))
        pixel = [size / few for size, few in zip(scan.matrix, self._grid, strict=True)]
        self._pixel = torch.tensor(pixel, dtype=torch.float64, device=scan.samples.device)
        r = [(torch.arange(n, device=self._pixel.device) - n // 2) * p for n, p in zip(self._grid, pixel, strict=True)]
        self._to_slopes = -2j * math.pi * torch.stack(torch.meshgrid(*r, indexing="ij"))
        rows, columns = (torch.arange(n)[:, None] - torch.arange(n) + n for n in self._grid)
        places = rows[:, None, :, None] * 2 * self._grid[1] + columns[:, None]
        self._places = places.reshape(math.prod(self._grid), -1).to(self._pixel.device)

    def evaluate(self, delays: Tensor, *, slopes: bool = True) -> Agreement:
        """Return how well the spokes agree under (3,) float64 delays (x, y, xy); infinitely badly far outside."""
        scores = torch.zeros((3, len(self.positions)), dtype=torch.float64, device=self.positions.device)
        curvature = torch.zeros((3, 3), dtype=torch.float64, device=self.positions.device)
        if float(GradientDelays(*_bounded(delays)).largest) > self._searched:
            return Agreement(math.inf, scores, curvature)
        bases, cost = _bases(self.direction, self.step), 0.0
        for group in self.groups:
            solve = _Solver(self, group, delays)
            images = solve.image_of(self.samples[group])
            missing = self.samples[group] - solve.spokes_of(images)
            # At the best image, the damped cost is the part of the data that its normal equations leave over.
            cost += float((self.samples[group].conj() * missing).real.sum())
            if not slopes:
                continue
            along = [solve.spokes_of(images * slope) for slope in self._to_slopes]
            moved = [along[0] * b[group, :1, None] + along[1] * b[group, 1:, None] for b in bases]
            free = [change - solve.spokes_of(solve.image_of(change)) for change in moved]
            scores[:, group] = torch.stack([(change.conj() * missing).real.sum((1, 2)) for change in moved])
            curvature += torch.stack([torch.stack([(a.conj() * b).real.sum() for b in free]) for a in moved])
        return Agreement(cost, scores, 0.5 * (curvature + curvature.T))

    def predict(self, delays: Tensor) -> Tensor:
        """Return the (spoke, coil, window) samples of the best images; zeros for spokes that were not looked at."""
        predicted = torch.zeros_like(self.samples)
        for group in self.groups:
            solve = _Solver(self, group, delays)
            predicted[group] = solve.spokes_of(solve.image_of(self.samples[group]))
        return predicted

    def left_out(self, delays: Tensor) -> Tensor:
        """Return (spoke,) squared errors of foreseeing each spoke from four fifths of the others."""
        errors = []
        for group in self.groups:
            for fold in range(_FOLDS):
                chosen = torch.arange(len(group), device=group.device) % _FOLDS == fold
                if not bool(chosen.any()):
                    continue
                solve = _Solver(self, group[~chosen], delays)
                foreseen = solve.spokes_of(solve.image_of(self.samples[group[~chosen]]), group[chosen])
                errors.append(((foreseen - self.samples[group[chosen]]).abs() ** 2).sum((1, 2)))
        return torch.cat(errors)


class _Solver:
    """Damped least-squares images of a group of spokes at given delays."""

    def __init__(self, fit: CentralFit, spokes: Tensor, delays: Tensor) -> None:
        self._fit, self._spokes, self._delays = fit, spokes, delays
        self._plan = self._planned(spokes)
        rows, columns = fit._grid
        points = self._points(spokes)
        wide = Nufft(points, (2 * rows, 2 * columns), dtype=torch.complex128, accuracy="reference")
        ones = torch.ones((1, len(points)), dtype=torch.complex128, device=points.device)
        normal = wide.adjoint(ones).flatten()[fit._places] * (2 / math.sqrt(rows * columns))
        normal.diagonal().add_(fit._damping * len(points) / (rows * columns))
        self._factor = torch.linalg.cholesky(normal)

    def _points(self, spokes: Tensor) -> Tensor:
        fit = self._fit
        moved = _displacement(self._delays, fit.direction[spokes], fit.step[spokes])
        return ((fit.positions[spokes] + moved[:, None]) * fit._pixel).reshape(-1, 2)

    def _planned(self, spokes: Tensor) -> Nufft:
        n_coils = self._fit.samples.shape[1]
        return Nufft(
            self._points(spokes), self._fit._grid, n_transforms=n_coils, dtype=torch.complex128, accuracy="reference"
        )

    def image_of(self, samples: Tensor) -> Tensor:
        """Return (coil, y, x) for (spoke, coil, window)."""
        seen = self._plan.adjoint(samples.transpose(0, 1).flatten(1))
        return torch.cholesky_solve(seen.flatten(1).T, self._factor).T.reshape(seen.shape)

    def spokes_of(self, images: Tensor, spokes: Tensor | None = None) -> Tensor:
        """Return (spoke, coil, window) for (coil, y, x), at the spokes given or those of the fit."""
        plan = self._plan if spokes is None else self._planned(spokes)
        return plan.forward(images).reshape(len(images), -1, self._fit.positions.shape[1]).transpose(0, 1)


def _bounded(delays: Tensor) -> list[float]:
    return [max(-LARGEST, min(LARGEST, float(value))) for value in delays]


def _groups(scan: RadialScan, spoken: Tensor, most: int, most_groups: int | None) -> list[Tensor]:
    """Return the spokes with signal of each slice and, where there are enough of them, of each frame."""
    key = scan.slices
    if scan.frame is not None:
        fine = key * (int(scan.frame.max()) + 1 if scan.n_spokes else 1) + scan.frame
        _, counts = torch.unique(fine[spoken], return_counts=True)
        if bool((counts >= 20).all()):
            key = fine
    keys = torch.unique(key[spoken])
    if most_groups is not None and len(keys) > most_groups:
        keys = keys[torch.linspace(0, len(keys) - 1, most_groups).round().long()]
    return [torch.nonzero(spoken & (key == k))[:, 0][:most] for k in keys]
