"""What the families' scripts share: fits that are made once, data sets of a given draw, and tables."""

import json
import time

import numpy as np
from tabulate import tabulate

from methods import METHODS
from tasks import DATASETS, TASKS
from tasks.datasets.memory import digest


def task_of(name, draw=0):
    """Return the task ``task/dataset`` on a draw of its simulator, for its primary metrics alone."""
    task, _, dataset = name.partition("/")
    return TASKS[task](DATASETS[dataset], "default", primary_only=True, draw=draw)


def value_of(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def settings_of(label, task):
    """Return the class and the configuration of ``name`` or ``name@key=value,…`` for a task."""
    name, _, changes = label.partition("@")
    changes = {key: value_of(value) for key, _, value in (pair.partition("=") for pair in changes.split(",") if pair)}
    known = METHODS[name].Config.__dataclass_fields__
    fixed = {key: value for key, value in task.settings.items() if key in known}
    return METHODS[name], METHODS[name].configure("default", task.dataset.name, **fixed, **changes)


def fit_all(label, task, datasets, seeds):
    """Return a method fitted to each data set with each seed, in one pass where it can be, and the seconds of a fit."""
    cls, config = settings_of(label, task)
    keys = [(digest(data), seed) for data, seed in zip(datasets, seeds, strict=True)]
    wanted = dict(zip(keys, datasets, strict=True))
    fitted, start = {key: cls(config) for key in wanted}, time.process_time()
    if cls.stackable:
        for error in cls.fit_stacked(list(fitted.values()), list(wanted.values()), [seed for _, seed in wanted]):
            if error is not None:
                raise error
    else:
        for (_, seed), data, method in zip(wanted, wanted.values(), fitted.values(), strict=True):
            method.fit(data, seed)
    return [fitted[key] for key in keys], (time.process_time() - start) / len(wanted)


def spread(values):
    """Return "mean ± standard deviation" of numbers, or the one there is."""
    values = [value for value in values if not np.isnan(value)]
    if not values:
        return "–"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def table(headers, rows):
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True), flush=True)
