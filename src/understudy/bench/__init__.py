"""Measuring what a standby and a primary speak."""
