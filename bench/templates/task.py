"""MyTask: what is held out, what a method sees meanwhile, and how its answer is scored.

python -m bench run --plugin my_task.py --methods pca,vae --tasks my-task --preset smoke
"""

import numpy as np

from tasks import register_task
from tasks.base import Reference, Task
from tasks.splits import handed


@register_task
class MyTask(Task):
    """How well samples of a cancer that was never seen are decoded from their codes."""

    name = "my-task"
    # raise it whenever a score changes its meaning
    version = 1
    tags = frozenset({"ood"})
    paper = "the paper that asks this"
    # python -m bench data list has all of them
    datasets = ("pancancer-sim",)
    # a method that lacks one of these abilities is skipped, with the reason
    requires = ("embed", "decode")
    # python -m bench list metrics; all primary ones make the score, secondary ones stand beside it
    primary = ("reconstruction_error",)
    secondary = ()
    # scored by the same evaluate(): a floor, the strongest simple baseline (a registered method), a ceiling
    references = (
        Reference("floor", "the mean of the training samples"),
        Reference("baseline", "PCA", ("pca",)),
        Reference("ceiling", "no error"),
    )
    # what is held out, in a word
    question = "Which method keeps most of a cancer that it never saw?"
    unit = "cancer"

    def units(self):
        """Return what is held out, one at a time; few of them at the smoke preset."""
        named = sorted(set(self._cancers))
        return named[:2] if self.preset == "smoke" else named

    def training_data(self, unit, seed):
        """Return all that a method may see; handed() copies expression and field columns, and no truth."""
        return handed(self.data, self._cancers != unit)

    def evaluate(self, fit, unit, seed):
        """Return the metrics named above: scores() hands each its arguments, by the names of its parameters."""
        fitted = fit(self.training_data(unit, seed))
        held_out = handed(self.data, self._cancers == unit)
        decoded = fitted.decode(fitted.embed(held_out))
        return self.scores(x=np.asarray(held_out.X), x_hat=decoded)

    def reference_fit(self, reference, unit, seed):
        """Return the fit of a reference that names no method: floor or ceiling."""
        return Mean if reference == "floor" else Exact

    @property
    def _cancers(self):
        return self.data.obs[self.fields.content].to_numpy(str)


class Mean:
    """Decodes every cell as the mean of those that it was fitted to."""

    def __init__(self, data):
        self.mean = np.asarray(data.X).mean(axis=0)

    def embed(self, data):
        """Return codes that say nothing."""
        return np.zeros((data.n_obs, 1), dtype=np.float32)

    def decode(self, codes):
        """Return the mean, for every cell."""
        return np.tile(self.mean, (len(codes), 1))


class Exact:
    """Its code is the expression itself."""

    def __init__(self, data):
        pass

    def embed(self, data):
        """Return the expression."""
        return np.asarray(data.X)

    def decode(self, codes):
        """Return the codes, which are expression."""
        return codes
