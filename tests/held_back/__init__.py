"""What methods score that the suite once held back: a module a family, and ``python -m tests.held_back FAMILY``.

Nothing here is a test: fits take minutes. The tables that it prints are in docs/held_back.md. The scripts use nothing
that is younger than the registries, so that they also measure an older version: copy this folder into a checkout of it.
"""
