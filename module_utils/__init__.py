"""Shared code of the modules in library/."""
