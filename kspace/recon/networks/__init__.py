"""Networks that reconstruct: modules only; what they have learnt lies in :mod:`kspace.weights`."""
