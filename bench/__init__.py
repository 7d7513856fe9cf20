"""What the project measures of itself: speed (:mod:`bench.speed`), and scripts for accuracy, quality and realism."""
