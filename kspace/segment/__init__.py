"""Contours of the heart's chambers on short-axis cines, where slices lie, and how sure of it the networks are."""
