"""The automatic similarity check."""
