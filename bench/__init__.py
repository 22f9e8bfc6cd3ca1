"""The program: plans the cross of methods and tasks, runs it, logs it and summarises it.

In a script or notebook::

    import bench

    rows = bench.run(methods=["pca", "vae"], tasks=["reembedding/pancancer-sim"])
    tables = bench.leaderboard(rows)
"""

from bench.api import Tables, leaderboard, run

__all__ = ["Tables", "leaderboard", "run"]
__version__ = "0.1.0"
