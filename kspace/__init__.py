"""From spokes to a verdict: reconstruction and quality. Knows nothing of how the spokes came to be."""
