"""The program: plans the cross of methods and tasks, runs it, logs it and summarises it."""

__version__ = "0.1.0"
