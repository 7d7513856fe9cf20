"""From a cine as it comes to contours, slice positions and how sure of them the networks are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kspace.errors import SpokewiseError, UsageError
from kspace.scan import Cine
from kspace.segment.finder import heart_places
from kspace.segment.inputs import network_inputs, normalised
from kspace.segment.maps import likeliest
from kspace.segment.network import SegmentationNetwork
from kspace.segment.networks import members, stored_network
from kspace.segment.orient import usual_turn
from kspace.segment.papillary import with_papillary_muscles
from kspace.segment.position import ordered_positions
from kspace.segment.refine import RefineOptions, refined
from kspace.segment.segmentation import FOREGROUND, Segmentation, SlicePosition, Structure
from kspace.segment.tidy import tidy
from kspace.segment.window import Window

Uncertainty = Literal["ensemble", "augmentation", "dropout"]
Topology = Literal["as drawn", "tidy", "refine"]
OnSlice = Callable[[int, int], None]
"""Called with the number of slices done and of all."""
OnProbabilities = Callable[[int, Tensor], None]
"""Called with the index of a slice and the probabilities (frame, 4, y, x) of its labels."""
_AUGMENTED = ((False, 1.0), (True, 1.0), (False, 0.9), (False, 1.12))  # mirrored, pixel over the usual one
_AT_ONCE = 4  # frames that a network sees at once: what it works on stays near the processor
_REFINED = RefineOptions(steps=8)  # of images of seven patients, more steps mended no more
_SURE_SHARE = 2 / 3  # of the slices hold a heart where there is one: of twelve validation stacks the least was 0.84
_LEAST_SPREAD = 1e-6  # of magnitudes over their mean: an image that is flatter shows nothing


@dataclass(frozen=True)
class Segmenter:
    """Draws contours on short-axis cines of any size.

    Slices are turned the usual way round, the heart is found in a coarse view of the whole stack, and the networks look
    at a window around it. Their mean probabilities decide; positions of slices decide what there may be.

    Parameters
    ----------
    uncertainty
        What makes the samples: ``ensemble``, one of each network; ``augmentation``, the mean network on the slice as it
        is, mirrored, and at two other sizes (test-time augmentation); ``dropout``, the first network with channels left
        out at random (MC dropout: Gal and Ghahramani, ICML 2016).
    topology
        What is done about pieces and holes: nothing; ``tidy``, the largest piece of each structure is kept and holes of
        the heart are filled; ``refine``, in slices that look like the middle of the ventricle contours are bent until
        they have a heart's topology, and all are tidied then (:mod:`kspace.segment.refine`). Samples are tidied only.
        With both, papillary muscles in middle and apical slices are counted to the cavity
        (:mod:`kspace.segment.papillary`).
    dropouts
        Samples of ``dropout``.
    seed
        Of what is left out.
    folder
        Of the networks; the package's own by default.

    Raises
    ------
    UsageError
        When an option makes no sense.
    """

    uncertainty: Uncertainty = "ensemble"
    topology: Topology = "refine"
    dropouts: int = 8
    seed: int = 0
    folder: Path | None = field(default=None)

    def __post_init__(self) -> None:
        if self.uncertainty not in ("ensemble", "augmentation", "dropout"):
            raise UsageError(f"an uncertainty of {self.uncertainty!r}", expected="ensemble, augmentation or dropout")
        if self.topology not in ("as drawn", "tidy", "refine"):
            raise UsageError(f"a topology of {self.topology!r}", expected="as drawn, tidy or refine")
        if not 1 <= self.dropouts <= 100:
            raise UsageError(f"{self.dropouts} samples with dropout", expected="1 to 100")

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the networks that draw.

        Raises
        ------
        SpokewiseError
            When there are none.
        """
        names = members(self.folder)
        if not names:
            raise SpokewiseError("there is no segmentation network", expected="segment-cine-0 among the models")
        return names[:1] if self.uncertainty == "dropout" else names

    def __call__(
        self, cine: Cine, *, on_slice: OnSlice | None = None, on_probabilities: OnProbabilities | None = None
    ) -> Segmentation:  # fmt: skip
        """Draw.

        Parameters
        ----------
        cine
            Magnitudes, or complex images whose magnitudes are taken; slices in the order in which they lie.
        on_slice
            Hears of progress.
        on_probabilities
            Hears the mean probabilities of every slice in which a heart was looked for: they are not kept.

        Returns
        -------
        Segmentation
            On the cine's own grid, on its device. Without a heart all labels are background.
        """
        ways = list(self._ways(cine.images.device))
        turn = usual_turn(cine.geometry)
        _, dy, dx = cine.geometry.spacing_mm
        spacing = (dx, dy) if turn.swapped else (dy, dx)
        slices = [turn.apply(images) for images in cine.images.abs()]
        flat = [_is_flat(images) for images in slices]
        places = () if all(flat) else heart_places(slices, spacing, self.folder)
        centre = _place_of_heart(slices, places, spacing, ways[0])
        found = []
        for index, images in enumerate(slices):
            if centre is None or flat[index]:
                found.append(_nothing(images, len(ways)))
            else:
                drawn, mean = _draw(images, centre, spacing, ways, self.topology)
                found.append(drawn)
                if on_probabilities is not None:
                    on_probabilities(index, turn.undo(mean))
            if on_slice is not None:
                on_slice(index + 1, len(slices))
        positions = ordered_positions(torch.stack([drawn.position for drawn in found]))
        labels, samples, entropy, risk = [], [], [], []
        for drawn, position in zip(found, positions, strict=True):
            there = position is not SlicePosition.NO_HEART
            labels.append(turn.undo(drawn.labels * there))
            samples.append(turn.undo(drawn.samples * there))
            entropy.append(turn.undo(drawn.entropy))
            risk.append(drawn.flip_risk if there else torch.full_like(drawn.flip_risk, torch.nan))
        return Segmentation(
            torch.stack(labels), cine.geometry, positions, torch.stack([drawn.position for drawn in found]),
            torch.stack(samples, dim=1), torch.stack(entropy), torch.stack(risk),
        )  # fmt: skip

    def _ways(self, device: torch.device) -> Iterator[_Way]:
        """Yield the ways of looking at a slice, one for each sample."""
        loaded = [stored_network(name, self.folder, device) for name in self.weights]
        if self.uncertainty == "ensemble":
            for network, view in loaded:
                yield _Way(network, view.size, view.pixel_mm)
        elif self.uncertainty == "augmentation":
            network, view = loaded[0]
            for mirrored, zoom in _AUGMENTED:
                yield _Way(network, view.size, view.pixel_mm * zoom, mirrored)
        else:
            network, view = loaded[0]
            for number in range(self.dropouts):
                yield _Way(network, view.size, view.pixel_mm, seed=self.seed + number)


@dataclass(frozen=True)
class _Drawn:
    """One slice: shapes as in :class:`~kspace.segment.segmentation.Segmentation`, without the slice."""

    labels: Tensor
    samples: Tensor
    position: Tensor
    entropy: Tensor
    flip_risk: Tensor


@dataclass(frozen=True)
class _Way:
    """One network's look at a window, perhaps mirrored, with channels left out if there is a seed for it."""

    network: SegmentationNetwork
    size: int
    pixel_mm: float
    mirrored: bool = False
    seed: int | None = None

    def look(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities of labels (frame, 4, y, x) and of the slice's position (4,)."""
        seen = seen.flip(-1) if self.mirrored else seen
        with torch.no_grad(), torch.random.fork_rng(enabled=self.seed is not None):
            if self.seed is not None:
                torch.manual_seed(self.seed)
                self.network.drop.train()
            try:
                parts = [self.network(some) for some in torch.split(seen, _AT_ONCE)]
            finally:
                self.network.drop.eval()
        labels = torch.cat([logits for logits, _ in parts]).softmax(1)
        position = torch.cat([logits for _, logits in parts]).softmax(1).mean(0)
        return (labels.flip(-1) if self.mirrored else labels), position


def _place_of_heart(
    slices: Sequence[Tensor], places: Sequence[tuple[float, float]], spacing: tuple[float, float], way: _Way
) -> tuple[float, float] | None:  # fmt: skip
    """Return the first place where a network sees a heart in most slices, or the one where it does in most of all."""
    best, most = None, -1.0
    for centre in places:
        window = Window(centre, way.size, way.pixel_mm, spacing)
        share = 0.0
        some = slices[:: 1 + (len(slices) > 4)]  # every other one will do
        for images in some:
            seen = network_inputs(normalised(window.cut(images)))
            _, position = way.look(seen[:: max(1, len(seen) // 2)][:2])
            share += (1 - float(position[SlicePosition.NO_HEART])) / len(some)
        if share > most:
            best, most = centre, share
        if share > _SURE_SHARE:
            break
    return best


def _draw(
    images: Tensor, centre: tuple[float, float], spacing: tuple[float, float], ways: list[_Way], topology: Topology
) -> tuple[_Drawn, Tensor]:  # fmt: skip
    """Draw one slice, the usual way round, around its heart; with the mean probabilities (frame, 4, y, x)."""
    shape, outside = tuple(images.shape[-2:]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    total, place, samples = None, [], []
    for way in ways:
        window = Window(centre, way.size, way.pixel_mm, spacing)
        seen = network_inputs(normalised(window.cut(images)))
        probabilities, position = way.look(seen)
        there = window.put_back(probabilities, (shape[0], shape[1]), outside)
        total = there if total is None else total + there
        place.append(position)
        samples.append(likeliest(there))
    assert total is not None
    mean = total / len(samples)
    position = torch.stack(place).mean(0)
    labels = likeliest(mean)
    if topology == "refine" and int(position.argmax()) == SlicePosition.MIDDLE:
        labels = refined(mean, _REFINED)
    alone = torch.stack(samples)
    if topology != "as drawn":
        labels, alone = tidy(labels), tidy(alone)
        if int(position.argmax()) in (SlicePosition.MIDDLE, SlicePosition.APEX):
            labels, alone = with_papillary_muscles(labels), with_papillary_muscles(alone)
    entropy = torch.special.entr(mean).sum(1)
    return _Drawn(labels, alone, position, entropy, flip_risk(mean, labels)), mean


def flip_risk(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return how undecided the networks are which structure it is where they are sure that it is one.

    The entropy, in nats, of the foreground's probabilities alone, averaged over the pixels that were labelled (Achara
    et al., arXiv 2604.13326).

    Parameters
    ----------
    probabilities
        (frame, 4, y, x).
    labels
        (frame, y, x).

    Returns
    -------
    (frame,) float32, NaN for a frame without foreground.
    """
    among = probabilities[:, list(FOREGROUND)]
    among = among / among.sum(1, keepdim=True).clamp_min(1e-12)
    entropy, labelled = torch.special.entr(among).sum(1), labels != Structure.BACKGROUND
    risk: Tensor = (entropy * labelled).sum((-2, -1)) / labelled.sum((-2, -1))
    return risk


def _is_flat(images: Tensor) -> bool:
    return bool(images.std() <= _LEAST_SPREAD * images.mean().clamp_min(1e-30))


def _nothing(images: Tensor, samples: int) -> _Drawn:
    """Return what there is to draw on a slice without a heart."""
    labels = torch.zeros(images.shape, dtype=torch.uint8, device=images.device)
    position = torch.zeros(len(SlicePosition), device=images.device)
    position[SlicePosition.NO_HEART] = 1
    return _Drawn(
        labels, labels.expand(samples, *labels.shape), position, torch.zeros_like(images, dtype=torch.float32),
        torch.full((len(images),), torch.nan, device=images.device),
    )  # fmt: skip
