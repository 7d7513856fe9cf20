"""Which spokes to distrust, and reconstruction without them."""
