"""The Python half of understudy: everything that touches audio, tensors or statistics."""

__version__ = "0.1.0"
