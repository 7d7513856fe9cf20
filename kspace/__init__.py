"""From spokes to a verdict: reconstruction, motion, segmentation, quality. Knows nothing of how the spokes came to be."""
