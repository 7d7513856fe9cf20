"""Reconstruction from the normal equations: one signature for all methods."""
