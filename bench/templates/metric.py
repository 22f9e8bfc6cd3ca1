"""my_metric: a pure function of arrays that returns a float. A task names it and hands over x and x_hat.

python -m bench run --plugin my_metric.py --plugin your_task.py --methods pca --tasks your-task
"""

import numpy as np

from metrics import METRICS, metric


# which way is better, the range of possible values, and where it is defined
@metric(better="lower", low=0.0, high=np.inf, reference="the paper that defines it")
def my_metric(x, x_hat):
    """Median absolute difference of expression and its reconstruction.

    Parameters
    ----------
    x, x_hat
        Expression and what was decoded, (n_cells, n_genes) each, on the scale of ``data.X``.
    """
    x, x_hat = np.asarray(x), np.asarray(x_hat)
    if x.shape != x_hat.shape:
        raise ValueError(f"x has the shape {x.shape} and x_hat {x_hat.shape}; the same is needed")
    # what is not defined is NaN, never 0: it is left out of means, and said
    return float(np.median(np.abs(x - x_hat))) if x.size else float("nan")


METRICS.register("my_metric", my_metric)
