"""When a scan stops: rules that see what is known so far, and say which slices go on."""

from kspace.quality.policies.conformal import Conformal, joint_limit, per_round_limits
from kspace.quality.policies.fixed import Fixed
from kspace.quality.policies.guaranteed import Guaranteed
from kspace.quality.policies.oracle import oracle
from kspace.quality.policies.path import Uniform, WhereItGains
from kspace.quality.policies.policy import Choice, Policy, Stopped, run
from kspace.quality.policies.two_classifiers import TwoClassifiers, TwoNetworks
from kspace.quality.policies.uncertainty import Uncertainty

__all__ = [
    "Choice",
    "Conformal",
    "Fixed",
    "Guaranteed",
    "Policy",
    "Stopped",
    "TwoClassifiers",
    "TwoNetworks",
    "Uncertainty",
    "Uniform",
    "WhereItGains",
    "joint_limit",
    "oracle",
    "per_round_limits",
    "run",
]
