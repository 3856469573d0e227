"""From a run directory to its verdict."""
