"""Carry out jobs: each in a process of its own, with its fits, metrics and result."""
