"""The states of a body that spokes share: drawn when first visited, kept as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from kspace.errors import ShapeError, UsageError
from kspace.nufft import AccuracyName
from kspace.parallel import map_frames
from simulate.body import Body, BodyState, Window
from simulate.scanner import periodic_spline

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")

_STILL_BYTES, _BEATING_BYTES = 100e6, 400e6


@dataclass(frozen=True)
class Sharing:
    """How much spokes share.

    Parameters
    ----------
    n_phases
        Cardiac states per beat that are drawn.
    breath_step_mm
        Distance of the breathing states that are drawn, in mm at the diaphragm.
    shared
        False draws one body per spoke: slow, and the yardstick.
    accuracy
        Of the transforms, see :mod:`kspace.nufft`; ``reference`` also keeps all coils and points of the heart's window.
    """

    n_phases: int = 48
    breath_step_mm: float = 1.0
    shared: bool = True
    accuracy: AccuracyName = "standard"

    def __post_init__(self) -> None:
        if not 4 <= self.n_phases <= 1024:
            raise UsageError(f"{self.n_phases} cardiac states", expected="4 to 1024")
        if not 0.05 <= self.breath_step_mm <= 10:
            raise UsageError(f"breathing states {self.breath_step_mm} mm apart", expected="0.05 to 10 mm")
        if self.accuracy not in ("fast", "standard", "reference"):
            raise UsageError(f"an accuracy {self.accuracy!r}", expected="fast, standard or reference")


class Cache(OrderedDict[Key, Result], Generic[Key, Result]):
    """Results by key, of which the oldest are forgotten when they outgrow the room."""

    def __init__(self, limit_bytes: float) -> None:
        super().__init__()
        self._limit = limit_bytes
        self._bytes: dict[Key, int] = {}

    def get_or(self, key: Key, make: Callable[[], tuple[Result, Tensor]]) -> Result:
        """Return what is kept, or make it: the result, and the tensor whose size counts."""
        if key not in self:
            self[key], tensor = make()
            self._bytes[key] = tensor.numel() * tensor.element_size()
            while len(self) > 1 and sum(self._bytes.values()) > self._limit:
                del self._bytes[self.popitem(last=False)[0]]
        return self[key]


class BodyStates:
    """One slice of a body at rest, and what beats in it, by breathing state and place through the plane.

    Parameters
    ----------
    body
        The body.
    index
        The slice.
    sharing
        How finely states are drawn.
    """

    def __init__(self, body: Body, index: int, sharing: Sharing) -> None:
        self.sharing = sharing
        self._body, self._index = body, index
        self._still: Cache[tuple[int, float], Tensor] = Cache(_STILL_BYTES)
        self._beating: Cache[tuple[float, int, float], tuple[Window, Tensor]] = Cache(_BEATING_BYTES)

    def image(self, state: BodyState, window: Window | None = None) -> Tensor:
        """Return the (y, x) complex64 image of a state, or of a window of it, before the coils."""
        image = self._body.image(self._index, state, window)
        shape = self._body.geometry.shape[1:]
        if window is not None:
            shape = (window.rows[1] - window.rows[0], window.columns[1] - window.columns[0])
        if tuple(image.shape) != shape:
            raise ShapeError("the body's image", image, f"(y, x) = {shape}")
        return image.to(torch.complex64)

    def still(self, breath: int, z_mm: float) -> Tensor:
        """Return the (y, x) body at end-diastole in one breathing state."""

        def draw() -> tuple[Tensor, Tensor]:
            image = self.image(self._state(0.0, 1.0, breath, z_mm))
            return image, image

        return self._still.get_or((breath, z_mm), draw)

    def difference(self, stroke: float, breath: int, z_mm: float) -> tuple[Window, Tensor]:
        """Return a window, and the (state, y, x) spline coefficients of the difference from end-diastole inside it.

        Outside of the window the body does not beat.
        """

        def draw() -> tuple[tuple[Window, Tensor], Tensor]:
            window = self.window(breath, z_mm)
            inside = self.still(breath, z_mm)[slice(*window.rows), slice(*window.columns)]
            n = self.sharing.n_phases
            states = torch.zeros((n, *inside.shape), dtype=torch.complex64, device=inside.device)

            def one(number: int) -> None:
                state = self._state((number + 0.5) / n, stroke, breath, z_mm)
                states[number] = self.image(state, window) - inside

            if inside.numel():
                side_by_side(one, range(n), inside.device)
                states = periodic_spline(states)
            return (window, states), states

        return self._beating.get_or((stroke, breath, z_mm), draw)

    def window(self, breath: int, z_mm: float) -> Window:
        """Return where the heart beats: the body's window, or a tighter one where it knows one by slice and state."""
        tight: Callable[[int, BodyState], Window] | None = getattr(self._body, "window_of", None)
        if tight is None:
            return self._body.heart_window
        return tight(self._index, self._state(0.0, 1.0, breath, z_mm))

    def _state(self, phase: float, stroke: float, breath: int, z_mm: float) -> BodyState:
        return BodyState(phase, stroke, breath * self.sharing.breath_step_mm, (0.0, 0.0, z_mm), 0.0)


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> list[Result]:
    """Apply a function to each item: in threads on a CPU, one by one on a GPU, which one thread keeps busy."""
    return map_frames(function, items) if device.type == "cpu" else [function(item) for item in items]
