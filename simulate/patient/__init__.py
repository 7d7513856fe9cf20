"""The virtual patient: anatomy, how it moves, and the population that it is drawn from. Synthetic throughout."""
