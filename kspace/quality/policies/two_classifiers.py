"""Stop a slice when two classifiers call it good: its images and its labels (Machado et al., IEEE TBME 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from kspace.quality.features import slice_features
from kspace.quality.linear import LinearModel
from kspace.quality.policies.policy import Choice, stay
from kspace.quality.view import View

NETWORK_SCORES = ("network_image_good", "network_labels_good")
"""Scores that :class:`TwoNetworks` reads: probabilities that a slice's images, and its labels, are good."""


@dataclass(frozen=True)
class TwoClassifiers:
    """Each slice ends by itself, as soon as both say "good" with more than even odds. No promise goes with it.

    The published classifiers are networks that look at images and labels; ours see the same label-free features as all
    other policies here.

    Parameters
    ----------
    image, segmentation
        Probabilities that a slice's images, and its labels, are good.
    """

    image: LinearModel
    segmentation: LinearModel
    name: str = "two classifiers"

    def __call__(self, view: View) -> Choice:
        """Decide."""
        features = slice_features(view)
        poor_image = self.image(features) < 0.5
        poor_labels = self.segmentation(features) < 0.5
        onward = (poor_image | poor_labels) & ~view.at_cap
        if not onward.any():
            reached = not (poor_image | poor_labels).any()
            return stay(view, "images and labels are good" if reached else "time is up", reached=reached)
        return Choice(onward, f"images are poor in {int(poor_image.sum())} slices, labels in {int(poor_labels.sum())}")


@dataclass(frozen=True)
class TwoNetworks:
    """The published policy with networks that look at images and labels: a slice ends when both say "good".

    What they say was computed beforehand and stands among the scores (:data:`NETWORK_SCORES`); a slice about which
    nothing is known goes on.
    """

    name: str = "two networks"

    def __call__(self, view: View) -> Choice:
        """Decide."""
        image, labels = (view.score(name) for name in NETWORK_SCORES)
        poor = ~((image >= 0.5) & (labels >= 0.5))
        onward = poor & ~view.at_cap
        if not onward.any():
            reached = not poor.any()
            return stay(view, "images and labels look good" if reached else "time is up", reached=reached)
        return Choice(onward, f"{int(poor.sum())} slices look poor")
