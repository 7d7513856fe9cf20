"""The XML header of an ISMRMRD file: parsed after it was found harmless, and built."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from ismrmrd import xsd

from kspace.errors import InputError
from kspace.formats.files import one_line
from kspace.scan import Geometry

_MAX_BYTES = 16 * 2**20
_MAX_SIDE = 8192
_MAX_SLICES = 65536
_VALID = "an ISMRMRD header that follows the schema"


@dataclass(frozen=True)
class Encoding:
    """What the reader needs of a header; matrices and fields of view in the order (x, y, z), lengths in mm."""

    encoded_matrix: tuple[int, int, int]
    encoded_fov_mm: tuple[float, float, float]
    recon_matrix: tuple[int, int, int]
    recon_fov_mm: tuple[float, float, float]
    trajectory: str
    n_slices: int
    tr_s: float | None
    numbers: dict[str, float] = field(default_factory=dict)
    strings: dict[str, str] = field(default_factory=dict)
    r_waves_s: tuple[float, ...] = ()


def parse_header(xml: bytes, name: str) -> Any:
    """Return the header as an object of ismrmrd's schema.

    Parameters
    ----------
    xml
        The text as stored.
    name
        Name of the file, for messages.

    Raises
    ------
    InputError
        When the text is no header, or declares a document type or entities, which no header needs: expanding them is
        a way to fill a reader's memory.
    """
    if len(xml) > _MAX_BYTES:
        raise InputError(f"the XML header of {name} is {len(xml)} bytes long", expected=f"at most {_MAX_BYTES}")
    if b"\0" in xml or re.search(rb"<!\s*(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise InputError(
            f"the XML header of {name} declares a document type or an entity, or is not in UTF-8",
            expected=_VALID,
            hint="Do not trust this file",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the parser warns, and goes on, where a number is no number
            return xsd.CreateFromDocument(xml)
    except Exception as error:  # the parser's own error family has no common base
        raise InputError(f"the XML header of {name} cannot be parsed ({one_line(error)})", expected=_VALID) from error


def describe(header: Any, space: int, name: str) -> Encoding:
    """Return what the header says of encoding space number ``space``, checked.

    Raises
    ------
    InputError
        When there is no such space, or a matrix or field of view is out of range.
    """
    if not 0 <= space < len(header.encoding):
        raise InputError(
            f"the readouts of {name} refer to encoding {space} but the header has {len(header.encoding)}",
            expected="an encoding for every readout",
        )
    encoding = header.encoding[space]
    spaces = (encoding.encodedSpace, encoding.reconSpace)
    for which in spaces:
        size, fov = which.matrixSize, which.fieldOfView_mm
        if not all(1 <= n <= _MAX_SIDE for n in (size.x, size.y)):
            raise InputError(f"{name} declares a matrix of {size.x} x {size.y}", expected=f"1 to {_MAX_SIDE} each")
        if not all(math.isfinite(f) and f > 0 for f in (fov.x, fov.y)):
            raise InputError(f"{name} declares a field of view of {fov.x} x {fov.y} mm", expected="positive numbers")
    limit = encoding.encodingLimits.slice
    n_slices = 1 + (limit.maximum if limit is not None else 0)
    if not 1 <= n_slices <= _MAX_SLICES:
        raise InputError(f"{name} declares {n_slices} slices", expected=f"1 to {_MAX_SLICES}")
    tr = list(header.sequenceParameters.TR) if header.sequenceParameters is not None else []
    tr_s = tr[0] / 1e3 if tr and math.isfinite(tr[0]) and 0.1 <= tr[0] <= 1e4 else None
    user = header.userParameters
    doubles = [p for p in (user.userParameterDouble if user is not None else []) if math.isfinite(p.value)]
    return Encoding(
        encoded_matrix=_matrix(spaces[0]),
        encoded_fov_mm=_fov(spaces[0]),
        recon_matrix=_matrix(spaces[1]),
        recon_fov_mm=_fov(spaces[1]),
        trajectory=encoding.trajectory.value,
        n_slices=n_slices,
        tr_s=tr_s,
        numbers={p.name: p.value for p in doubles if p.name != "r_wave_s"},
        strings={p.name: p.value for p in (user.userParameterString if user is not None else [])},
        r_waves_s=tuple(sorted(p.value for p in doubles if p.name == "r_wave_s")),
    )


def build_header(
    geometry: Geometry,
    n_coils: int,
    *,
    n_steps: int,
    n_frames: int | None,
    numbers: dict[str, float],
    r_waves_s: list[float],
    source: str,
    tr_s: float | None,
    te_s: float | None,
) -> bytes:
    """Return the XML text of a radial scan; ``n_steps`` is the largest number of spokes of one slice."""
    n_slices, rows, columns = geometry.shape
    height, width = geometry.field_of_view_mm
    depth = geometry.slice_thickness_mm or geometry.spacing_mm[0]
    space = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=columns, y=rows, z=1),
        fieldOfView_mm=xsd.fieldOfViewMm(x=width, y=height, z=depth),
    )
    limits = xsd.encodingLimitsType(
        kspace_encoding_step_1=_limit(n_steps), slice=_limit(n_slices), phase=_limit(n_frames or 1)
    )
    doubles = [*numbers.items(), *(("r_wave_s", value) for value in r_waves_s)]
    strings = {"frame_counter": "none" if n_frames is None else "phase", "source": one_line(source, 200)}
    header = xsd.ismrmrdHeader(
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(receiverChannels=n_coils),
        # The schema wants a frequency; 0 says that this scan does not know it.
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=0),
        encoding=[
            xsd.encodingType(
                encodedSpace=space, reconSpace=space, encodingLimits=limits, trajectory=xsd.trajectoryType.RADIAL
            )
        ],
        sequenceParameters=xsd.sequenceParametersType(
            TR=[] if tr_s is None else [tr_s * 1e3], TE=[] if te_s is None else [te_s * 1e3]
        ),
        userParameters=xsd.userParametersType(
            userParameterDouble=[xsd.userParameterDoubleType(name=n, value=float(v)) for n, v in doubles],
            userParameterString=[xsd.userParameterStringType(name=n, value=v) for n, v in strings.items()],
        ),
    )
    return str(xsd.ToXML(header, encoding="utf-8")).encode("utf-8")


def _limit(count: int) -> Any:
    return xsd.limitType(minimum=0, maximum=count - 1, center=0)


def _matrix(space: Any) -> tuple[int, int, int]:
    return space.matrixSize.x, space.matrixSize.y, space.matrixSize.z


def _fov(space: Any) -> tuple[float, float, float]:
    return space.fieldOfView_mm.x, space.fieldOfView_mm.y, space.fieldOfView_mm.z
