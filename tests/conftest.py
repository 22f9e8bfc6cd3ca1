"""One thread a process, as in a run, before numpy is imported anywhere."""

from bench.environment import limit_threads

limit_threads()
