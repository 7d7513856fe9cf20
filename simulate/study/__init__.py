"""Studies: many virtual patients, every step of each of their scans judged once, and any policy evaluated on that."""
