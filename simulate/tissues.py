"""What a body is made of: the tissues that the virtual patient is drawn with."""

from __future__ import annotations

from enum import IntEnum


class Tissue(IntEnum):
    """Index of a tissue in arrays of tissue fractions and of signals."""

    AIR = 0
    LUNG = 1
    FAT = 2
    MUSCLE = 3
    SKIN = 4
    BONE = 5
    """Cortical bone and tendon: next to no signal."""
    MARROW = 6
    MYOCARDIUM = 7
    ARTERIAL_BLOOD = 8
    VENOUS_BLOOD = 9
    PERICARDIUM = 10
    LIVER = 11
    SPLEEN = 12
    STOMACH = 13
    """Contents of the stomach and bowel that give signal; gas in them is AIR."""
    CORD = 14
    CSF = 15
    SCAR = 16
    """Infarcted myocardium."""


N_TISSUES = len(Tissue)
