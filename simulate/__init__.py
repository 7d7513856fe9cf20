"""From a patient to spokes, and the studies run on them."""
