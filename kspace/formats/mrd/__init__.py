"""Radial raw data as ISMRMRD files: :func:`read_scan`, :func:`write_scan` and, for a running scan, :class:`ScanWriter`.

What the files hold, beyond the standard:

=========================  ==========================================================================================
``traj``                   (kx, ky) in cycles per pixel of the encoded space; read as cycles per field of view if larger
``timestamp_tick_s``       userParameterDouble: seconds in one tick of the time stamps; 2.5 ms where it is missing
``r_wave_s``               userParameterDouble, one for each R wave, on the clock of the time stamps
``slice_spacing_mm``       userParameterDouble: distance between slices, which fieldOfView_mm (thickness) does not tell
``slice_thickness_mm``     userParameterDouble, left out where the thickness is not known
``frame_counter``          userParameterString: "phase" where the phase counter fixes frames, "none" where gating has to
``source``                 userParameterString: what the scan came from
noise readouts             as many as it takes for their sample covariance to equal the scan's noise covariance
=========================  ==========================================================================================
"""

from kspace.formats.mrd.reader import read_scan
from kspace.formats.mrd.writer import ScanWriter, write_scan

__all__ = ["ScanWriter", "read_scan", "write_scan"]
