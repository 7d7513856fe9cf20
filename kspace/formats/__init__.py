"""Files in and out: ISMRMRD, NIfTI, DICOM, BART cfl. What comes from outside is checked before use."""
