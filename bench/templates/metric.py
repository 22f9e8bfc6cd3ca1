"""my_metric: a pure function of arrays that returns a float. A task names it and hands over x and x_hat.

python -m bench run --plugin my_metric.py --plugin your_task.py --methods pca --tasks your-task
"""

from typing import Annotated

import numpy as np

from metrics import METRICS, metric
from metrics.arrays import Floats

#: The decorator checks arrays that are annotated: here finite numbers of one shape.
Expression = Annotated[Floats, "n_cells n_genes"]


# which way is better, the range of possible values, and where it is defined
@metric(better="lower", low=0.0, high=np.inf, paper="the paper that defines it")
def my_metric(x: Expression, x_hat: Expression) -> float:
    """Median absolute difference of expression and its reconstruction.

    Parameters
    ----------
    x, x_hat
        Expression and what was decoded, (n_cells, n_genes) each, on the scale of ``data.X``.
    """
    # what is not defined is NaN, never 0: it is left out of means, and said
    return float(np.median(np.abs(x - x_hat)))


METRICS.register("my_metric", my_metric)
