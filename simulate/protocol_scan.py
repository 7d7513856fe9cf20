"""A virtual patient scanned by the very protocol of a calibrated stopping rule, so that its promise applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from kspace.quality.calibration import StoppingCalibration
from kspace.recon.methods import make_method
from kspace.scan import Cine
from kspace.segment.segmentation import SlicePosition
from simulate.acquisition import LoopOptions
from simulate.patient.parameters import Group
from simulate.source import SpokeSource
from simulate.stack_judge import Drawn
from simulate.stack_policy import StackPolicy, guaranteed_policy, shipped_calibration
from simulate.study.compute import planned_place
from simulate.study.look import Looker, dice
from simulate.study.protocol import Part, Protocol, Who
from simulate.study.stack import scan_who
from simulate.study.store import facts_of
from simulate.subject import SubjectOptions
from simulate.vendors import vendor

_NAMES = ("lv", "myocardium", "rv")  # of FOREGROUND, in scores
_SNR = 20.0  # within what studies draw


@dataclass(frozen=True)
class LookerDrawer:
    """Draws a stack that was planned on the heart as a study does.

    Parameters
    ----------
    looker
        The networks.
    protocol
        Of the study.
    """

    looker: Looker
    protocol: Protocol

    def __call__(self, cine: Cine) -> tuple[Drawn, ...]:
        """Return one for each slice."""
        count = len(cine.images)
        return tuple(self._slice(images, planned_place(i, count)) for i, images in enumerate(cine.images.abs()))

    def _slice(self, images: torch.Tensor, place: SlicePosition) -> Drawn:
        look = self.looker(images, self.protocol.field_of_view_mm, place)
        apart = torch.stack([dice(look.labels, sample) for sample in look.samples])
        return Drawn(
            look.labels,
            self.looker.areas(look.labels).numpy(),
            self.looker.areas(look.samples).numpy(),
            {
                "entropy": look.entropy,
                "flip_risk": look.flip_risk,
                "betti_errors": look.betti_errors,
                "disagreement": 1 - float(apart.nanmean()),
                **{f"disagreement_{name}": 1 - float(apart[:, k].nanmean()) for k, name in enumerate(_NAMES)},
                **{
                    f"position_{p.name.lower()}": float(look.position[p])
                    for p in (SlicePosition.BASE, SlicePosition.MIDDLE, SlicePosition.APEX)
                },
            },
        )


@dataclass(frozen=True)
class ProtocolScan:
    """A scan that is set up by a protocol: the source, how it is scanned, and who decides."""

    source: SpokeSource
    options: LoopOptions
    together: StackPolicy


def protocol_of(card: StoppingCalibration) -> Protocol:
    """Return the protocol of a calibration.

    Raises
    ------
    InputError
        When the card holds none.
    """
    values: dict[str, Any] = {key: value for key, value in card.protocol.items() if key != "weights"}
    return Protocol.of(values, f"the calibration {card.name}")


def protocol_scan(
    card: StoppingCalibration, seed: int, group: Group = Group.NORMAL, style: str = "siemens"
) -> ProtocolScan:
    """Put a virtual patient into the scanner as the patients of a calibration were.

    Parameters
    ----------
    card
        The calibrated rule.
    seed
        Of the patient.
    group
        Diagnostic group.
    style
        Of the scanner.

    Raises
    ------
    InputError
        When the card holds no protocol.
    """
    protocol = protocol_of(card)
    who = Who(0, seed, Part.TEST, group, style, min(max(_SNR, protocol.snr[0]), protocol.snr[1]), False, False)
    looker = Looker.shipped(protocol.members, protocol.window, protocol.frames_at_once)
    facts = {**card.protocol, "weights": facts_of(protocol, 0)["weights"]}  # networks may have been trained since
    together = guaranteed_policy(card, LookerDrawer(looker, protocol), protocol.seconds, facts)
    options = LoopOptions(n_frames=protocol.frames, method=make_method(protocol.method), times=protocol.seconds)
    return ProtocolScan(scan_who(protocol, who), options, together)


def planned_scan(source: str, subject: SubjectOptions | None) -> ProtocolScan | None:
    """Set a virtual patient's scan up by the shipped calibration.

    Parameters
    ----------
    source
        ``phantom`` or ``phantom:SEED``.
    subject
        Who it is; studies know groups and styles, no further wishes.

    Returns
    -------
    None where the source is no phantom, or more is wanted of the patient.

    Raises
    ------
    UsageError
        When no calibration is shipped.
    """
    from simulate.opened import phantom_seed

    seed, who = phantom_seed(source), subject or SubjectOptions()
    if seed is None or who != SubjectOptions(group=who.group, vendor=who.vendor):
        return None
    return protocol_scan(shipped_calibration(), seed, who.patient(seed).group, vendor(who.vendor).name)
