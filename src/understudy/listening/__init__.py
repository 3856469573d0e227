"""The blind listening test."""
