"""What a scan leaves behind: one record per step, per slice and per scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from kspace.quality.judge import Score
from kspace.scan import Geometry
from simulate.scan_heart import ScanHeart


@dataclass(frozen=True)
class StepRecord:
    """One step of the loop on one slice.

    Parameters
    ----------
    seconds
        Scan time of the slice when the decision was taken.
    spokes
        Number of spokes acquired by then.
    scores
        What the judges said.
    stop, reason
        The decision, and why.
    reconstruction_s
        Wall-clock seconds that the reconstruction of this step took.
    truth
        Image quality against the truth where there is one (``psnr_db``, ``ssim``, ``nrmse``, inside the body), else
        empty. No judge has seen it.
    """

    seconds: float
    spokes: int
    scores: tuple[Score, ...]
    stop: bool
    reason: str
    reconstruction_s: float
    truth: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SliceDistrust:
    """What the loop thought of the spokes of a slice.

    Parameters
    ----------
    time_s
        (spoke,) instants.
    ecg_s
        (beat,) R waves.
    probability
        (spoke,) to be corrupted, as it was judged in the end.
    body_mm, heart_mm
        (spoke,) how far body and heart seemed to have gone in the plane.
    watched_s
        Wall-clock seconds that judging took.
    """

    time_s: Tensor
    ecg_s: Tensor
    probability: Tensor
    body_mm: Tensor
    heart_mm: Tensor
    watched_s: float

    @property
    def flagged(self) -> int:
        """Number of spokes that were corrupted more probably than not."""
        return int((self.probability >= 0.5).sum())


@dataclass(frozen=True)
class SliceRecord:
    """A finished slice.

    Parameters
    ----------
    index
        Position in the stack, counted from 0.
    steps
        All decisions, oldest first.
    stopped
        Whether quality was reached before the cap.
    spokes_per_frame
        Mean number of spokes per cardiac phase at the end.
    image
        (frame, y, x) real, magnitude of the final reconstruction.
    truth
        (frame, y, x) real, magnitude of the band-limited truth on the same grid; None for real k-space.
    body
        (y, x) bool, the region in which quality against the truth is measured; None where there is no truth.
    distrust
        What was thought of its spokes; None where nobody watched.
    """

    index: int
    steps: tuple[StepRecord, ...]
    stopped: bool
    spokes_per_frame: float
    image: Tensor
    truth: Tensor | None = None
    body: Tensor | None = None
    distrust: SliceDistrust | None = None

    @property
    def seconds(self) -> float:
        """Scan time of the slice."""
        return self.steps[-1].seconds

    @property
    def spokes(self) -> int:
        """Number of spokes acquired."""
        return self.steps[-1].spokes

    @property
    def reason(self) -> str:
        """Why the slice ended."""
        return self.steps[-1].reason


@dataclass(frozen=True)
class ScanRecord:
    """A whole scan, finished or interrupted.

    Parameters
    ----------
    source
        What was scanned, in words.
    synthetic
        Whether the spokes were simulated (from a phantom or from a real cine) and not measured.
    options
        Every option of the run with its value, as they go into ``scan.json``.
    versions
        Of Spokewise, Python and the libraries that computed.
    geometry
        The reconstruction grid of the whole stack (its slices may be more than were finished).
    n_slices
        Number of slices that were to be scanned.
    rr_s
        Mean RR interval in seconds, which sets the speed of the playing cine.
    slices
        The finished slices in the order of their acquisition.
    interrupted
        Whether the run was broken off before all slices were done.
    wall_s
        Wall-clock seconds of the run so far.
    heart
        What the finished slices show of it, or why nobody looked.
    stopping
        What a policy of the whole stack decided and what is promised with it; empty where slices ended by themselves.
    """

    source: str
    synthetic: bool
    options: Mapping[str, object]
    versions: Mapping[str, str]
    geometry: Geometry
    n_slices: int
    rr_s: float
    slices: tuple[SliceRecord, ...]
    interrupted: bool = False
    wall_s: float = 0.0
    heart: ScanHeart | str = "nobody looked"
    stopping: Mapping[str, object] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Scan time of all finished slices."""
        return sum(record.seconds for record in self.slices)
