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

METHODS: dict[str, Callable[[], Method]] = {
    "gridding": Gridding,
    "cg-sense": CgSense,
    "cs": TemporalTV,
    "l+s": LowRankSparse,
    "llr": LocallyLowRank,
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
