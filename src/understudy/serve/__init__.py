"""The voice server and its client."""
