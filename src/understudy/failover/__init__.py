"""Which client speaks to which voice server."""
