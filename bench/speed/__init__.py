"""Reconstruction speed, ours and that of peers, side by side: ``spokewise bench``."""
