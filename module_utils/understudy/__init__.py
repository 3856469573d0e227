"""The rules behind understudy's modules: pure, and standard library only."""
