"""Embedded simulators, one file each. Each keeps the true factors in ``obsm`` and ``uns``."""
