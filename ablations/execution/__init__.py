"""Running cells on Ray: clusters, trials, recovery from failures."""
