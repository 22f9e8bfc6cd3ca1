"""DRVI, by drvi-py."""
