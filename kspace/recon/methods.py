"""All reconstruction methods by their names on the command line."""

from __future__ import annotations

from collections.abc import Callable

from kspace.errors import UsageError
from kspace.recon.cg_sense import CgSense
from kspace.recon.gridding import Gridding
from kspace.recon.locally_low_rank import LocallyLowRank
from kspace.recon.low_rank_sparse import LowRankSparse
from kspace.recon.method import Method
from kspace.recon.temporal_tv import TemporalTV
from kspace.recon.unet import UNet
from kspace.recon.unrolled import Unrolled
from kspace.weights.store import read_card

METHODS: dict[str, Callable[[], Method]] = {
    "gridding": Gridding,
    "cg-sense": CgSense,
    "cs": TemporalTV,
    "l+s": LowRankSparse,
    "llr": LocallyLowRank,
    "unet": UNet,
    "unrolled": Unrolled,
}


def make_method(name: str) -> Method:
    """Return a method with its default options.

    Raises
    ------
    UsageError
        When there is no method of that name.
    """
    if name not in METHODS:
        raise UsageError(f"there is no reconstruction method {name!r}", expected=", ".join(METHODS))
    return METHODS[name]()


def weights_of(method: Method) -> str | None:
    """Return the name of the stored weights that a method uses and the first digits of their SHA-256; None for none."""
    if not isinstance(method, (UNet, Unrolled)):
        return None
    return f"{method.weights} ({read_card(method.weights, method.folder).sha256[:12]})"
