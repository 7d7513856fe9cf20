"""Learning from virtual patients: hearts that are drawn, randomised and rendered on the fly. All synthetic."""
