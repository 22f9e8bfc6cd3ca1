"""Rules that every method keeps, a function each; it raises CheckFailed with what was seen and what to do.

A check returns what it measured, "" where there is nothing to say.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import io
import json
import random
import tempfile
import textwrap
import time
import tokenize
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.studies.check.extremes import EXTREMES, ORDINARY, extreme
from bench.studies.check.subject import TARGET, CheckFailed, NotApplicable, Subject, cells, differences, outputs
from methods import CannotFit
from methods.base import ABILITIES, PRESETS, Method
from methods.errors import ConfigError

#: Epochs of a second try, for what three epochs may not have learned yet.
LONGER = 60
#: Epochs of the fits whose time is compared, and how often each is made.
TIMED, REPEATS = 10, 2


def require(holds: bool, sentence: str) -> None:
    """Raise CheckFailed with ``sentence`` unless ``holds``."""
    if not holds:
        raise CheckFailed(sentence)


# --- what a method says of itself


def about(subject: Subject) -> str:
    """A name, a docstring, a paper, and tags that agree with its abilities."""
    cls = subject.cls
    require(cls.name == subject.name, f"it is registered as {subject.name!r} and calls itself {cls.name!r}")
    known = ", ".join(ABILITIES)
    abilities = cls.abilities()
    require(
        bool(abilities & {"embed", "predict"}) and abilities <= set(ABILITIES),
        f"it can {', '.join(sorted(abilities)) or 'nothing'}: define embed or predict (abilities are {known})",
    )
    require(bool((vars(cls).get("__doc__") or "").strip()), "the class has no docstring: say what it is, in a line")
    tags = cls.tags
    require(
        isinstance(tags, frozenset)
        and bool(tags)
        and all(isinstance(tag, str) and tag == tag.lower().strip() for tag in tags),
        f"tags are {tags!r}: give a frozenset of words in small letters, as frozenset({{'embedding'}})",
    )
    for ability, tag in (("embed", "embedding"), ("predict", "prediction")):
        able = ability in abilities
        require(
            able == (tag in tags),
            f"it {'has' if able else 'has no'} {ability}() and {'lacks' if able else 'has'} the tag {tag!r}, by which "
            f"such methods are found: {'add' if able else 'remove'} the tag",
        )
    require(
        bool(cls.paper.strip()) or "baseline" in tags,
        "paper is empty: name what to cite (or, for a baseline, add the tag 'baseline')",
    )
    return ", ".join(sorted(abilities))


def fields_without_source(cls: type) -> tuple[list[str], list[str]]:
    """Return the annotated fields of a Config class, and those without a comment on, within or just above them."""
    source = textwrap.dedent(inspect.getsource(cls))
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and len(token.string.strip("# ")) > 2
    }
    standing_alone = {i for i, line in enumerate(source.splitlines(), 1) if line.strip().startswith("#")}
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    annotated = {
        node.target.id: node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    missing = [
        name
        for name, node in annotated.items()
        if not comments & set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        and node.lineno - 1 not in comments & standing_alone
    ]
    return list(annotated), missing


def config_sources(subject: Subject) -> str:
    """Config is a frozen dataclass, and each default says where it comes from."""
    config_class: Any = subject.cls.Config
    require(
        dataclasses.is_dataclass(config_class) and vars(config_class)["__dataclass_params__"].frozen,
        "Config is no frozen dataclass: decorate it with @dataclass(frozen=True)",
    )
    seen: set[str] = set()
    for cls in config_class.__mro__[:-1]:
        try:
            names, missing = fields_without_source(cls)
        except OSError:
            raise NotApplicable("its Config is made at run time and has no source") from None
        require(
            not missing,
            f"{cls.__qualname__} has defaults that do not say where they come from ({', '.join(missing)}): add a "
            "comment to each, such as '# Higgins et al. 2017' or '# ours'",
        )
        seen |= set(names)
    lacking = subject.keys - seen
    require(
        not lacking, f"Config has fields that are not annotated in it ({', '.join(sorted(lacking))}): annotate them"
    )
    return f"{len(seen)} keys"


def config_values(subject: Subject) -> str:
    """Unknown keys and values of a wrong type are refused by name."""
    cls = subject.cls
    wrong: list[tuple[str, Any]] = [("no_such_key", 1)]
    for field in dataclasses.fields(cls.Config):
        default: Any = getattr(cls.Config(), field.name)
        wrong += [(field.name, None), (field.name, {}), (field.name, 3 if isinstance(default, str) else "3")]
        wrong += [(field.name, True)] if isinstance(default, int | float) and not isinstance(default, bool) else []
        wrong += [(field.name, 1.5)] if isinstance(default, int) else []
    for key, value in wrong:
        named = f"{cls.name} has no config key {key!r}" if key == "no_such_key" else f"{cls.name}.{key}="
        try:
            cls.configure(**{key: value})
        except ConfigError as refusal:
            require(named in str(refusal), f"{key}={value!r} is refused without its name: {refusal}")
        else:
            raise CheckFailed(f"{key}={value!r} is accepted: leave configure() as methods.base.Method has it")
    return f"{len(wrong)} wrong ones refused"


def presets(subject: Subject) -> str:
    """Presets have known names, and change what they say."""
    cls = subject.cls
    unknown = {preset.partition("/")[0] for preset in cls.presets} - set(PRESETS)
    require(not unknown, f"presets has {', '.join(sorted(unknown))}: only {', '.join(PRESETS)} are known")
    for preset in {*PRESETS, *cls.presets}:
        config = cls.configure(*preset.split("/"))
        require(type(config) is cls.Config, f"preset {preset} gives a {type(config).__name__}: return cls.Config")
        for key, value in cls.presets.get(preset, {}).items():
            got = getattr(config, key)
            require(got == value, f"preset {preset} sets {key}={value!r} and {got!r} comes out: mend configure()")
    require(cls.configure() == cls.Config(), "configure() without changes is not Config(): mend configure()")
    return ", ".join(cls.presets)


# --- fit, embed, predict


def fit(subject: Subject) -> str:
    """Ordinary data can be fitted, and fit returns the method."""
    try:
        # now, before any other fit: later fits are compared with this one, which must not depend on other cells
        subject.found  # noqa: B018
    except (CannotFit, ConfigError) as refusal:
        shape = "{} cells of {} genes, log-normalised and with counts".format(*cells().data.shape)
        raise CheckFailed(f"ordinary data ({shape}) are refused: {refusal}; mend what makes it refuse them") from None
    method = subject.cls(subject.config)
    returned = method.fit(subject.data, 0)
    require(returned is method, f"fit returns {type(returned).__name__}: end it with 'return self'")
    return ""


def codes(subject: Subject) -> str:
    """One row of finite codes a cell, and no column without variation."""
    subject.can("embed")
    queries = subject.queries
    found = subject.fitted.embed(queries)
    require(isinstance(found, np.ndarray), f"embed returns a {type(found).__name__}: return a NumPy array")
    require(
        found.ndim == 2 and found.shape[0] == queries.n_obs and found.shape[1] >= 1,
        f"embed returns the shape {found.shape} for {queries.n_obs} cells: return (n_cells, n_latent)",
    )
    most = getattr(subject.config, "n_latent", found.shape[1])
    require(found.shape[1] <= most, f"embed returns {found.shape[1]} codes a cell and n_latent is {most}: keep to it")
    bad = ~np.isfinite(found)
    require(
        not bad.any(),
        f"embed returns NaN or infinite codes for {bad.any(axis=1).sum()} of {len(found)} cells: find where it divides "
        "by zero or overflows, and refuse data that it is not made for with CannotFit",
    )
    flat = np.flatnonzero(found.std(axis=0) == 0)
    require(
        not len(flat),
        f"code {', '.join(map(str, flat))} is the same for every cell: leave out what carries nothing, or see why the "
        "encoder ignores its input",
    )
    return f"{found.shape[1]} codes"


def embed_again(subject: Subject) -> str:
    """Embedding twice gives the same codes, and leaves the fitted state alone."""
    subject.can("embed")
    method = subject.fitted
    before = copy.deepcopy(method.state()) or {}
    first, in_training = method.embed(subject.queries), method.embed(subject.data)
    again = {"embed": method.embed(subject.queries), "embed of training cells": method.embed(subject.data)}
    said = differences({"embed": first, "embed of training cells": in_training}, again)
    require(
        not said,
        f"the same cells embedded again have other codes ({said}): embed must neither draw random numbers (call "
        "network.eval() at the end of fit) nor update what fit has learned",
    )
    said = differences(before, method.state()) if before else ""
    require(not said, f"embed changes the fitted state ({said}): compute with it, and assign to self in fit alone")
    return ""


def cells_alone(subject: Subject) -> str:
    """A cell has the same code whatever cells it is embedded with."""
    subject.can("embed")
    if subject.cls.embeds_together:
        raise NotApplicable("embeds_together is set")
    queries, method = subject.queries, subject.fitted
    how = (
        "turn off dropout and batch statistics (network.eval() at the end of fit) and centre on the training cells, "
        "not on those handed to embed; set embeds_together = True where codes must be laid out together"
    )
    together = method.embed(queries.copy())
    try:
        alone = np.vstack([method.embed(queries[[i]].copy()) for i in range(queries.n_obs)])
    except Exception as error:
        raise CheckFailed(f"embedding one cell alone raises {_named(error)}: {how}") from error
    require(
        _close(alone, together),
        f"a cell embedded alone has another code than among others (by up to {_apart(alone, together)}): {how}",
    )
    return ""


def order_of_cells(subject: Subject) -> str:
    """Row i of the codes is of cell i, in whatever order cells come."""
    subject.can("embed")
    queries, method = subject.queries, subject.fitted
    order = np.random.default_rng(0).permutation(queries.n_obs)
    together = method.embed(queries.copy())
    shuffled = method.embed(queries[order].copy())
    if subject.cls.embeds_together:  # the layout is drawn anew, but stays in the same place
        moved = np.linalg.norm(shuffled.mean(axis=0) - together.mean(axis=0)) / np.linalg.norm(together.std(axis=0))
        require(
            bool(moved < 1),
            f"the same cells in another order are laid out {moved:.2g} standard deviations away: place new cells among "
            "the training cells",
        )
        return f"moved by {moved:.2g} standard deviations"
    require(
        _close(shuffled, together[order]),
        f"cells in another order have codes that are not in that order (off by up to "
        f"{_apart(shuffled, together[order])}): return row i for cell i, without sorting or grouping them",
    )
    return ""


def same_seed(subject: Subject) -> str:
    """Two fits of one seed are bit-identical."""
    expected = subject.found
    said = differences(expected, outputs(subject.fit()))
    require(
        not said,
        f"two fits of the same data and seed differ ({said}): draw every random number from the seed, as "
        "np.random.default_rng(seed), and sum in an order that does not change",
    )
    return ", ".join(expected)


def another_seed(subject: Subject) -> str:
    """The seed is used: by a method that is trained, in all that it says."""
    subject.fitted  # noqa: B018 - the first fit
    other = outputs(subject.fit(seed=1))
    compared = [key for key in ("embed", "predict") if key in other]
    same = [key for key in compared if np.abs(subject.found[key] - other[key]).max() <= 1e-3 * np.abs(other[key]).max()]
    trained = "vae" in subject.cls.tags or bool(subject.fitted.history) or bool(subject.trained_for(1))
    if len(same) == len(compared) and not trained:
        raise NotApplicable("seeds 0 and 1 give the same: right for a method without chance")
    require(
        not same or not trained,
        f"seeds 0 and 1 give the same {' and '.join(same)}: draw initial weights and minibatches from the seed that "
        "fit is handed",
    )
    return ""


def global_random_state(subject: Subject) -> str:
    """Nothing is drawn from the random state that all code shares, and nothing is done to it."""
    import torch

    expected = subject.found

    def states() -> dict[str, Any]:
        of_numpy: Any = np.random.get_state()  # noqa: NPY002
        return {
            "random": random.getstate(),
            "numpy.random": [np.asarray(part).tolist() for part in of_numpy],
            "torch": torch.get_rng_state().tolist(),
        }

    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    before = states()
    found = outputs(subject.fit())
    after = states()
    touched = [name for name in before if before[name] != after[name]]
    own = "draw from a generator of its own, np.random.default_rng(seed) or, for PyTorch, within methods.neural.seeded"
    require(not touched, f"the global random state of {' and '.join(touched)} is not what it was before: {own}")
    said = differences(expected, found)
    require(not said, f"the fit depends on the global random state that it meets ({said}): {own}")
    return ""


def data_untouched(subject: Subject) -> str:
    """A method does not change the data that it is handed."""
    from tasks.datasets.memory import digest

    data, queries = subject.data, subject.queries
    method = subject.fit(data)
    if hasattr(method, "embed"):
        method.embed(queries)
    if hasattr(method, "predict"):
        method.predict(queries, TARGET)
    for used, original, where in ((data, subject.data, "fit"), (queries, subject.queries, "embed or predict")):
        changed = [
            what
            for what, same in {
                "X": np.array_equal(used.X, original.X),
                "obs": used.obs.equals(original.obs),
                "var": used.var.equals(original.var),
                "uns": used.uns == original.uns,
                "layers": list(used.layers) == list(original.layers),
                "obsm": not used.obsm,
                "obsp": not used.obsp,
                "varm": not used.varm,
            }.items()
            if not same
        ]
        changed = changed or ([] if digest(used) == digest(original) else ["counts or labels"])
        require(
            not changed,
            f"{where} changes the data handed in ({', '.join(changed)}), which other methods are handed too: work on "
            "a copy",
        )
    return ""


def predictions(subject: Subject, longer: int = LONGER) -> str:
    """Predicted expression is on the scale of X."""
    subject.can("predict")

    def measured(method: Any) -> tuple[float, float]:
        queries = subject.queries
        predicted = method.predict(queries, TARGET)
        require(
            predicted.shape == queries.shape,
            f"predict returns the shape {predicted.shape}: return (n_cells, n_genes), here {queries.shape}",
        )
        require(
            bool(np.isfinite(predicted).all()),
            "predict returns NaN or infinite values: refuse with CannotFit what it cannot predict",
        )
        truth = cells().held_out.X.mean(axis=0)
        with np.errstate(invalid="ignore"):
            r = np.corrcoef(predicted.mean(axis=0), truth)[0, 1]
        return float(predicted.mean() / truth.mean()), float(np.nan_to_num(r))

    def sound(ratio: float, r: float) -> bool:
        # measured: ratio .95 to 1.09, r .83 (VAEs after three epochs) to .96; no change itself has 1.09 and .93
        return 0.75 < ratio < 1.33 and r > 0.7

    found = measured(subject.fitted)
    if not sound(*found) and longer and subject.trained_for(longer):
        found = measured(subject.fit(**subject.trained_for(longer)))
    ratio, r = found
    require(
        sound(ratio, r),
        f"predictions have {ratio:.3g} times the mean of the cells that they are of (.75 to 1.33 is right), and gene "
        f"means that correlate with theirs at {r:.2f} (above .7 is): return expression on the scale of data.X "
        f"({cells().data.uns['X_units']}), genes in their order, not counts, shares or standardised values",
    )
    return f"mean {ratio:.2f} times the truth's, r {r:.2f}"


def untrained_environment(subject: Subject) -> str:
    """An environment that was never trained is refused."""
    subject.can("predict")
    method = subject.fitted
    if subject.cls.predicts_untrained:
        predicted = method.predict(subject.queries, "never seen")
        require(
            predicted.shape == subject.queries.shape and bool(np.isfinite(predicted).all()),
            "predict of an environment never trained is not finite (n_cells, n_genes), and predicts_untrained says "
            "that it can: mend it, or raise CannotFit",
        )
        return "predicted, as predicts_untrained says"
    how = "raise CannotFit that names the environment asked for and those trained (or set predicts_untrained = True)"
    try:
        method.predict(subject.queries, "never seen")
    except CannotFit as refusal:
        named = all(environment in str(refusal) for environment in ("'never seen'", "control", TARGET))
        require(
            named,
            f"the refusal of an environment never trained says {str(refusal)!r}: name the environment asked for, in "
            "quotes, and those trained",
        )
        return ""
    except Exception as error:
        raise CheckFailed(f"an environment never trained makes predict raise {_named(error)}: {how}") from error
    raise CheckFailed(f"predict answers for an environment that no cell was trained in: {how}")


def decoding(subject: Subject, least: float = 0.95, longer: int = LONGER) -> str:
    """Decoding the training cells' codes gives expression."""
    subject.can("decode", "embed")

    def measured(method: Any) -> float:
        data = subject.data
        decoded = method.decode(method.embed(data.copy()))
        require(
            decoded.shape == data.shape,
            f"decode returns the shape {decoded.shape}: return (n_cells, n_genes), here {data.shape}",
        )
        require(bool(np.isfinite(decoded).all()), "decode returns NaN or infinite values: find where it overflows")
        return float(np.corrcoef(decoded.mean(axis=0), data.X.mean(axis=0))[0, 1])

    # three epochs are no fit, yet the gene means are about right from the start
    r = measured(subject.fitted)
    if not r > least and longer and subject.trained_for(longer):
        r = measured(subject.fit(**subject.trained_for(longer)))
    require(
        r > least,
        f"gene means of decoded training cells correlate with the cells' own at {r:.2f} (above {least} is right): "
        "decode returns the expected expression on the scale of data.X, genes in their order",
    )
    return f"r {r:.2f}"


def other_abilities(subject: Subject) -> str:
    """Likelihoods, targets and blocks have the right shape and range."""
    found, n = subject.found, subject.queries.n_obs
    likelihoods = found.get("log_likelihood")
    if likelihoods is not None:
        require(
            likelihoods.shape == (n,) and bool(np.isfinite(likelihoods).all()),
            f"log_likelihood returns the shape {likelihoods.shape}, or values that are not finite: return ({n},)",
        )
    targets = found.get("intervention_targets")
    if targets is not None:
        require(
            targets.ndim == 2 and bool(((targets >= 0) & (targets <= 1)).all()),
            f"intervention_targets returns the shape {targets.shape}, or values outside [0, 1]: return "
            "(n_perturbations, n_latent) in [0, 1]",
        )
    blocks = {key.removeprefix("embed_blocks "): z for key, z in found.items() if key.startswith("embed_blocks ")}
    if blocks:
        require(
            set(blocks) == {"shared", "private"},
            f"embed_blocks returns {', '.join(sorted(blocks))}: return 'shared' and 'private'",
        )
        require(
            all(z.ndim == 2 and len(z) == n and np.isfinite(z).all() for z in blocks.values()),
            f"blocks have the shapes {', '.join(str(z.shape) for z in blocks.values())}, or values that are not "
            f"finite: return codes of all {n} cells",
        )
    having = [name for name in ("log_likelihood", "intervention_targets", "embed_blocks") if hasattr(subject.cls, name)]
    if not having:
        raise NotApplicable("it has no log_likelihood, intervention_targets or embed_blocks")
    return ", ".join(having)


# --- state


def save_and_load(subject: Subject) -> str:
    """A fit that is stored and read back says the same."""
    from bench.jobs.fits import load, save

    cls = subject.cls
    own = [name for name in ("state", "restore") if getattr(cls, name) is not getattr(Method, name)]
    require(len(own) != 1, f"it has {''.join(own)}() alone: define both, or neither")
    method = subject.fitted
    state = method.state()
    if state is None:
        raise NotApplicable("it has an attribute that cannot be stored (methods.state): each job fits it anew")
    odd = [str(key) for key, value in state.items() if not isinstance(key, str) or not _plain(value)]
    require(
        not odd,
        f"state() has what cannot be stored ({', '.join(odd)}): return arrays of numbers, numbers, strings and lists "
        "of them, under keys that are strings",
    )
    expected = subject.found
    restored = cls(method.config)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "fit.safetensors"
        save(method, 0.0, file)
        try:
            load(restored, file)
            found = outputs(restored)
        except (AttributeError, KeyError) as error:
            raise CheckFailed(
                f"a fit that is stored and read back raises {_named(error)}: put all that embed and predict read into "
                "state(), and take it back in restore()"
            ) from error
    said = differences(expected, found)
    require(
        not said,
        f"a fit that is stored and read back is not the same ({said}): put all that embed and predict read into "
        "state(), and take it back in restore()",
    )
    return f"{len(state)} entries"


def _plain(value: Any) -> bool:
    """Return whether ``value`` is an array of numbers, a number, a string, or a list of such."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    if isinstance(value, list):
        return all(_plain(item) for item in value)
    with suppress(TypeError, ValueError):
        return isinstance(value, str | int | float | bool) and json.loads(json.dumps(value)) == value
    return False


# --- leaks


def no_leak(subject: Subject) -> str:
    """A fit does not remember held-out cells that another fit was shown."""
    import multiprocessing
    import os
    from concurrent.futures import ProcessPoolExecutor

    from bench.jobs.executors.local import PRELOAD

    expected = subject.found
    # a fresh process: in this one a method may remember its first fit, which was made without the held-out cells
    os.environ.setdefault(PRELOAD, "vae")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.jobs.executors.preload"])
    with ProcessPoolExecutor(1, context) as pool:
        found = pool.submit(_outputs_after_truth, subject.name, subject.changes, subject.plugins).result()
    said = differences(expected, found)
    require(
        not said,
        f"a fit without the held-out cells comes out otherwise once another fit was shown them ({said}): remember "
        "nothing in the class, the module or a file, only in self",
    )
    return ""


def _outputs_after_truth(name: str, changes: dict[str, Any], plugins: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return what a fit says in a process in which another one was shown the held-out cells, with another truth."""
    from bench.plan.plugins import load_plugin

    for plugin in plugins:
        load_plugin(plugin)
    subject = Subject(name, changes, plugins)
    outputs(subject.fit(cells().with_other_truth()))
    return subject.found


# --- extremes


def extremes(subject: Subject, case: str) -> str:
    """Data at the edge are worked with or refused with a reason, never answered with nonsense."""
    data = extreme(case)
    try:
        method = subject.fit(data.copy())
    except (CannotFit, ConfigError) as refusal:
        reason = str(refusal)
        require(len(reason) > 10, f"{case} is refused with {reason!r}: say what is needed, and what was got")
        lacks_counts = "counts" not in data.layers and "counts" in reason
        require(
            case not in ORDINARY or lacks_counts,
            f"{case} is refused ({reason}), which is no reason: real data have many constant genes and environments",
        )
        return f"refused: {reason}"
    how = "mend it, or refuse such data in fit, with CannotFit and the reason"
    if hasattr(method, "embed"):
        found = method.embed(data.copy())
        require(
            found.shape[0] == data.n_obs and bool(np.isfinite(found).all()),
            f"{case}: codes have the shape {found.shape} for {data.n_obs} cells, or are not finite: {how}",
        )
    if hasattr(method, "predict"):
        controls = data[data.obs["condition"] == "control"].copy()
        try:
            predicted = method.predict(controls.copy(), TARGET)
        except (CannotFit, ConfigError) as refusal:
            require(
                case == "one cell" and TARGET in str(refusal),
                f"{case}: predict refuses what fit accepted ({refusal}): {how}",
            )
            return f"prediction refused: {refusal}"
        require(
            predicted.shape == controls.shape and bool(np.isfinite(predicted).all()),
            f"{case}: predictions have the shape {predicted.shape} for {controls.shape}, or are not finite: {how}",
        )
        largest, allowed = np.abs(predicted).max(), 2 * data.X.max() + 1
        require(
            bool(largest < allowed),
            f"{case}: predictions reach {largest:.3g} where X reaches {data.X.max():.3g}: {how}",
        )
    return "works"


# --- speed


def speed(subject: Subject, absurd: float = 20.0, bearable: float = 10.0) -> str:
    """A fit takes no absurd time beside the plain VAE's; a matter of ``absurd`` times and ``bearable`` seconds."""
    subject.fitted  # noqa: B018 - what is imported or compiled at the first fit is not timed
    reference, seconds = _seconds_of("vae"), _seconds(subject)
    ratio = seconds / reference
    said = f"{ratio:.2g} times the plain VAE's {reference:.2g} s"
    require(
        ratio <= absurd or seconds <= bearable,
        f"a fit takes {seconds:.3g} s, {said} at the same epochs: look for a loop over cells or genes",
    )
    return said


def capture(subject: Subject, refuse: bool = False) -> str:
    """A step of training can be recorded on a GPU, where it is then several times as fast; else it is said why not."""
    from methods.nn import graphs

    with graphs.checking() as found:
        subject.fit(**subject.trained_for(1))
    if not found:
        raise NotApplicable("it is not trained by the suite's loop")
    obstacles = list(dict.fromkeys(filter(None, found)))
    if obstacles:
        slow = f"steps on a GPU are taken one operation at a time: {'; '.join(obstacles)}"
        require(not refuse, slow)
        return slow
    return "steps can be recorded on a GPU"


@cache
def _seconds_of(name: str) -> float:
    subject = Subject(name)
    subject.fit()
    return _seconds(subject)


def _seconds(subject: Subject) -> float:
    """Return the shortest of some fits' times."""
    changes = subject.trained_for(TIMED)
    times = []
    for _ in range(REPEATS):
        data, clock = subject.data, time.perf_counter()
        subject.fit(data, **changes)
        times.append(time.perf_counter() - clock)
    return min(times)


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and np.allclose(
        found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max(), equal_nan=True
    )


def _apart(found: np.ndarray, expected: np.ndarray) -> str:
    if found.shape != expected.shape:
        return f"shapes {found.shape} and {expected.shape}"
    return f"{np.nanmax(np.abs(found - expected)):.2g} where codes have a standard deviation of {expected.std():.2g}"


def _named(error: Exception) -> str:
    return f"{type(error).__name__} ({str(error).partition(chr(10))[0]})"


#: All checks by name, in the order in which they are made.
CHECKS: dict[str, Callable[..., str]] = {
    "about": about,
    "config sources": config_sources,
    "config values": config_values,
    "presets": presets,
    "fit": fit,
    "no leak": no_leak,
    "codes": codes,
    "embed again": embed_again,
    "cells alone": cells_alone,
    "order of cells": order_of_cells,
    "same seed": same_seed,
    "another seed": another_seed,
    "global random state": global_random_state,
    "data untouched": data_untouched,
    "predictions": predictions,
    "untrained environment": untrained_environment,
    "decoding": decoding,
    "other abilities": other_abilities,
    "save and load": save_and_load,
    **{f"extreme: {case}": partial(extremes, case=case) for case in EXTREMES},
    "speed": speed,
    "capture": capture,
}
