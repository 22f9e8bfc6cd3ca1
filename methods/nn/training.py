"""The training loop of all networks."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from methods.errors import CannotFit
from methods.neural import environment_numbers, seeded
from methods.nn import graphs
from methods.nn.sparse import SparseRows, gathered
from methods.nn.stacked import Best, Weights, drawing_from, keep, stack

#: Constants of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
#: Names under which a cell's stratum and the number of its environment are among its tensors.
STRATUM, ENVIRONMENT = "stratum", "number of the environment"
#: A pass over small data has at least ``FEWEST`` minibatches, unless they had fewer than ``SMALLEST`` cells.
FEWEST, SMALLEST = 8, 32
#: Share of the steps over which the learning rate rises, and share of the passes without improvement that end a fit.
RISE, PATIENCE = 0.3, 0.5
#: A fit still improves at its end if more than this share of the whole fall of the validation loss lies in the second
#: half of its passes, where the rate falls. On 11 pairs of method and task (development draw 1004) three times the
#: steps lowered the loss of the fits above it by 2 to 20 %, of those below it by at most 1.1 %.
STILL = 0.03
#: Stacked fits see equally many cells in a pass. On a GPU the smallest of their data sets may have this share of the
#: cells of the largest, whose fit then leaves out others in each pass; on the CPU all have equally many.
LEAST_OF_LARGEST = 0.75
#: Cells of a validation step; the memory of some penalties grows with the square of the cells.
VALIDATED_AT_ONCE = 1024


class NonFiniteLoss(FloatingPointError):
    """A loss term became NaN or infinite; the message names it, the epoch and what to try."""


class Model(Protocol):
    """The parts of a method that the loop calls."""

    @property
    def unwatched(self) -> Collection[str]:
        """Return the loss terms that say nothing of the quality of the model, such as the loss of an adversary.

        The best weights are chosen without them.
        """

    def loss_terms(self, network: Any, minibatch: Mapping[str, Tensor], progress: float | Tensor) -> dict[str, Tensor]:
        """Return the named loss terms of a minibatch, each a scalar mean over cells; their sum is the loss.

        The names are the same in every minibatch. For stacked fits each term is (n_fits,). ``progress``, in (0, 1], is
        the share of the fit's steps that are done after this one; in validation it is 1, so that rising weights count
        in full. It is a tensor () where the step is recorded and replayed on a GPU (:mod:`methods.nn.graphs`), and a
        number elsewhere.
        """

    def parameter_groups(self, network: Any) -> list[dict[str, Any]]:
        """Return the parameter groups of the optimiser; a group's ``lr`` replaces the schedule's."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes
    ----------
    steps
        Gradient steps, rounded to whole passes over the training split, of which there is at least one.
    learning_rate
        The largest of Adam's rates; see :meth:`rate`.
    minibatch
        Cells of a gradient step at most; all minibatches of a pass have the same size, up to one cell. Small data have
        smaller ones: see :meth:`minibatches`.
    validation
        Share of the cells that are held out of the gradient steps; the best weights have the smallest loss of these
        cells after a pass. With fewer than 20 cells the training loss is used instead.
    warmup
        Share of the steps, at the start, in which the loss still changes, so that no weights count as best.
    """

    steps: int
    learning_rate: float
    minibatch: int
    validation: float
    warmup: float = 0.0

    def minibatches(self, n_cells: int) -> int:
        """Return how many minibatches a pass over ``n_cells`` cells has."""
        size = min(self.minibatch, max(SMALLEST, n_cells // FEWEST))
        n = -(-n_cells // size)
        return min(n, n_cells // 2) if size > 1 else n  # batch norm needs two cells

    def rate(self, progress: float) -> float:
        """Return the learning rate, as a share of the largest, of the step with which ``progress`` is reached.

        It rises linearly over the first :data:`RISE` of the steps and falls to 0 along half a cosine (one cycle, Smith
        & Topin 2019).
        """
        if progress < RISE:
            return progress / RISE
        return 0.5 * (1 + math.cos(math.pi * (progress - RISE) / (1 - RISE)))


@dataclass(frozen=True)
class Adversary:
    """A part of the network that is trained against the rest, by its own gradient steps.

    Attributes
    ----------
    groups
        The parameter groups of its optimiser, Adam.
    steps
        Gradient steps that it takes before each step of the rest.
    reads
        ``reads(network, minibatch)`` returns its input, without gradient.
    loss
        ``loss(network, input)`` returns its loss, a scalar mean over cells.
    """

    groups: list[dict[str, Any]]
    steps: int
    reads: Callable[[Any, Mapping[str, Tensor]], Tensor]
    loss: Callable[[Any, Tensor], Tensor]


@dataclass
class Outcome:
    """Training curves (term to value at each epoch), the reason why training stopped, and the error if any.

    ``converged`` is False where the fit still improved at its end (:data:`STILL`). ``remark`` is empty unless a GPU had
    to take its steps one operation at a time.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    stopped: str = ""
    converged: bool = True
    error: NonFiniteLoss | None = None
    remark: str = ""


def fit_stacked(methods: Sequence[Any], datasets: Sequence[Any], seeds: Sequence[int]) -> list[Exception | None]:
    """Fit variational autoencoders of one class and configuration; :meth:`Variational.fit_stacked` has the contract."""
    for method, data, seed in zip(methods, datasets, seeds, strict=True):
        with seeded(seed):
            method.prepare(data)
    errors: list[Exception | None] = [None] * len(methods)
    for fits in _alike(methods, datasets):
        try:
            found = _fit_at_once([methods[i] for i in fits], [datasets[i] for i in fits], [seeds[i] for i in fits])
        except torch.OutOfMemoryError as problem:  # of a GPU
            raise MemoryError(f"{len(fits)} fits at once: {problem}") from problem
        for i, error in zip(fits, found, strict=True):
            errors[i] = error
    return errors


def _alike(methods: Sequence[Any], datasets: Sequence[Any]) -> list[list[int]]:
    """Return the numbers of the methods that can be fitted at once, in one list; the methods are prepared.

    Networks and losses of a list are the same but for their weights, and so are the numbers of cells. On a GPU, where
    a step of many fits takes little longer than that of one, the numbers may differ (:data:`LEAST_OF_LARGEST`).
    """
    least = LEAST_OF_LARGEST if graphs.can_record(methods[0].where) else 1.0
    lists: list[list[int]] = []
    for i in sorted(range(len(methods)), key=lambda i: -datasets[i].n_obs):  # the first of a list has most cells
        for others in lists:
            large_enough = datasets[i].n_obs >= least * datasets[others[0]].n_obs
            if large_enough and methods[i].learned() == methods[others[0]].learned():
                others.append(i)
                break
        else:
            lists.append([i])
    return [sorted(fits) for fits in lists]


def _fit_at_once(methods: Sequence[Any], datasets: Sequence[Any], seeds: Sequence[int]) -> list[Exception | None]:
    """Fit prepared methods of one list of :func:`_alike`; equal data are kept once."""
    first, distinct, numbers = methods[0], list[dict[str, Any]](), list[int]()
    for method, data in zip(methods, datasets, strict=True):
        tensors: dict[str, Any] = method.tensors(data) | method.supervision(data)
        tensors |= {STRATUM: method.strata(data), ENVIRONMENT: environment_numbers(data, method.where)}
        number = next((i for i, others in enumerate(distinct) if _equal(tensors, others)), len(distinct))
        distinct = distinct if number < len(distinct) else [*distinct, tensors]
        numbers.append(number)
    ends = list(accumulate(len(tensors[ENVIRONMENT]) for tensors in distinct))
    spans = [range(ends[number] - len(distinct[number][ENVIRONMENT]), ends[number]) for number in numbers]
    tensors = distinct[0] if len(distinct) == 1 else {k: _concatenated([d[k] for d in distinct]) for k in distinct[0]}
    del distinct
    strata, environments = tensors.pop(STRATUM), tensors.pop(ENVIRONMENT)
    outcomes = train_stacked(
        first,
        [method.network for method in methods],
        tensors,
        first.schedule(),
        seeds,
        first.name,
        strata,
        spans,
        environments,
        first.adversary(first.network),
    )
    remarks = list(first.log)
    for method, data, outcome in zip(methods, datasets, outcomes, strict=True):
        method.history = outcome.history
        for remark in (*remarks, *filter(None, [outcome.remark]), f"training stopped: {outcome.stopped}"):
            method.note(remark)
        method.unconverged = "" if outcome.converged else f"still improved at {outcome.stopped}"
        if outcome.error is None:
            method.settle(data)
    return [outcome.error for outcome in outcomes]


def _equal(tensors: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Return whether two sets of tensors are equal; a tensor may be None."""
    pairs = [(tensors[key], others[key]) for key in tensors]
    return all(a is b or (a is not None and b is not None and a.equal(b)) for a, b in pairs)


def _concatenated(parts: list[Any]) -> Any:
    """Return the cells of several tensors as one; all of them may be None."""
    if parts[0] is None:
        return None
    return SparseRows.cat(parts) if isinstance(parts[0], SparseRows) else torch.cat(parts)


def train(
    model: Model,
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    schedule: Schedule,
    seed: int,
    name: str,
    strata: Tensor | None = None,
    environments: Tensor | None = None,
) -> Outcome:
    """Train ``network`` in place by Adam and leave it in eval mode with its best weights.

    Parameters
    ----------
    model
        Gives the loss terms.
    network
        On its device.
    tensors
        Training data by name, the first axis being cells, on the network's device.
    schedule
        How long and how fast.
    seed
        Seed of the split, the order of cells, dropout and the posterior draws.
    name
        The method's name, for messages.
    strata
        Labels (n_cells,), whole numbers; every minibatch holds the labels in the proportions of all cells.
    environments
        Labels (n_cells,), whole numbers; each label keeps a cell in the training split.

    Raises
    ------
    NonFiniteLoss
        When a term is NaN or infinite at the end of an epoch.
    """
    (outcome,) = train_stacked(model, [network], tensors, schedule, [seed], name, strata, None, environments)
    if outcome.error is not None:
        raise outcome.error
    return outcome


def train_stacked(
    model: Model,
    networks: Sequence[nn.Module],
    tensors: Mapping[str, Tensor],
    schedule: Schedule,
    seeds: Sequence[int],
    name: str,
    strata: Tensor | None = None,
    spans: Sequence[range] | None = None,
    environments: Tensor | None = None,
    adversary: Adversary | None = None,
) -> list[Outcome]:
    """Train networks of one shape at once, each as :func:`train` would, up to rounding.

    Parameters
    ----------
    model
        Gives the loss terms of all fits, (n_fits,) each; with one network there is no leading axis.
    networks
        Of one shape.
    tensors, strata, environments
        As in :func:`train`; where fits have different data, the cells of all data sets, one after another.
    schedule, name
        As in :func:`train`.
    seeds
        One for each network.
    spans
        The cells of each network's data; by default all share one data set. A pass has as many cells of each as the
        smallest has to train on, and all hold out equally many: larger ones leave out other cells in each pass.
    adversary
        Allowed for a single network.

    Returns
    -------
    list
        The outcome of each fit; it has an error if the loss became NaN or infinite.
    """
    keep_freed_memory()
    where = next(iter(tensors.values())).device
    # cells are ordered on the CPU, so that the order is the same on every device and no GPU has to be waited for
    strata, environments = (None if labels is None else labels.cpu() for labels in (strata, environments))
    spans = spans or [range(len(next(iter(tensors.values()))))] * len(networks)
    n_cells = min(map(len, spans))
    if n_cells < 2:
        raise CannotFit(f"{name} needs at least 2 cells, got {n_cells}")
    n_validation = min(int(schedule.validation * n_cells), n_cells - 2) if n_cells >= 20 else 0
    stacked = len(networks) > 1
    network = stack(networks) if stacked else networks[0]
    n_kept = n_cells - n_validation
    n_minibatches = schedule.minibatches(n_kept)
    n_passes = max(1, round(schedule.steps / n_minibatches))
    fits = [
        _Fit(*each, where, n_validation, n_passes, schedule.warmup, environments)
        for each in zip(networks, seeds, spans, strict=True)
    ]

    noise = [fit.noise for fit in fits] if stacked else []
    why, captured = "", False
    if graphs.can_record(where) or graphs.asked():
        padded = {key: part.padded() if isinstance(part, SparseRows) else part for key, part in tensors.items()}
        first = _joined([fit.kept[: -(-n_kept // n_minibatches)] for fit in fits], stacked).to(where)
        with drawing_from(noise) if stacked else nullcontext():
            why = graphs.obstacle(model, network, padded, first, adversary)
        captured = graphs.can_record(where) and not why
    trainer = _Trainer(model, network, padded if captured else tensors, schedule, adversary, captured)
    running, best = list(fits), Best(network, stacked)
    with (
        torch.random.fork_rng(devices=[where] if where.type == "cuda" else []),
        graphs.recording(where) if captured else nullcontext(),
    ):
        torch.manual_seed(seeds[0])
        learn, judge = trainer.steps(noise)
        for epoch in range(n_passes):
            with drawing_from([fit.noise for fit in running]) if stacked else nullcontext():
                network.train()
                order = _joined([fit.shuffled(strata, n_kept) for fit in running], stacked).to(where)
                totals: Any = 0.0
                for i, cells in enumerate(order.tensor_split(n_minibatches, -1)):
                    trainer.begin((epoch * n_minibatches + i + 1) / (n_passes * n_minibatches))
                    totals = totals + learn(cells) * (cells.shape[-1] / n_kept)
                names = trainer.names
                watched = totals[[key not in model.unwatched for key in names]].sum(0)
                if n_validation:
                    network.eval()
                    watched = torch.zeros_like(watched)
                    held = _joined([fit.held for fit in running], stacked).to(where)
                    for cells in held.split(VALIDATED_AT_ONCE, -1):
                        watched += judge(cells) * (cells.shape[-1] / n_validation)
            curves = dict(zip(names, totals.view(len(names), -1).tolist(), strict=True))
            if n_validation:
                curves["validation"] = watched.view(-1).tolist()
            improved = []
            for i, (fit, loss) in enumerate(zip(running, watched.view(-1).tolist(), strict=True)):
                values_of_fit = {key: values[i] for key, values in curves.items()}
                if not fit.ended and fit.take_in(epoch, values_of_fit, loss, name):
                    improved.append(i)
            best.take(improved)
            unfinished = [i for i, fit in enumerate(running) if not fit.ended]
            if not unfinished:
                break
            # steps of fewer fits would be recorded anew, and on a GPU a fit beside others takes little time
            if len(unfinished) <= (len(running) // 2 if captured else len(running) - 1):
                for i, fit in enumerate(running):
                    if fit.ended:
                        fit.finish(best.of(i))
                still = torch.tensor(unfinished, device=where)
                keep(network, trainer.optimizer, still)
                best.keep(still)
                running = [running[i] for i in unfinished]
                learn, judge = trainer.steps([fit.noise for fit in running])
        trainer.optimizer.zero_grad()
    for i, fit in enumerate(running):
        fit.finish(best.of(i))
    for fit in fits if graphs.can_record(where) and why else []:
        fit.outcome.remark = f"trained one operation at a time, as its steps cannot be recorded: {why}"
    return [fit.outcome for fit in fits]


class _Trainer:
    """A network and its optimisers; a step is a function of the numbers of its cells alone.

    Parameters
    ----------
    model, network, tensors, schedule, adversary
        Those of the fit.
    captured
        Whether steps are recorded on a GPU and replayed.
    """

    def __init__(
        self,
        model: Model,
        network: nn.Module,
        tensors: Mapping[str, Any],
        schedule: Schedule,
        adversary: Adversary | None,
        captured: bool,
    ):
        self.model, self.network, self.tensors, self.schedule = model, network, tensors, schedule
        self.adversary, self.captured = adversary, captured
        groups = model.parameter_groups(network)
        self.optimizer = torch.optim.Adam(groups, lr=schedule.learning_rate, fused=True, capturable=captured)
        self.opponent = torch.optim.Adam(adversary.groups, fused=True, capturable=captured) if adversary else None
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.names: list[str] = []
        self.progress: float | Tensor = 0.0
        if captured:  # what changes from step to step is refilled
            where = next(network.parameters()).device
            self.progress = torch.zeros((), device=where)
            for group in self.optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=where)

    def steps(self, generators: Sequence[torch.Generator]) -> tuple[Callable[[Tensor], Tensor], ...]:
        """Return :meth:`learn` and :meth:`judge`, recorded where they are captured; they draw from ``generators``."""
        if not self.captured:
            return self.learn, self.judge
        pool = torch.cuda.graph_pool_handle()
        return tuple(graphs.Replayed(function, generators, pool) for function in (self.learn, self.judge))

    def begin(self, progress: float) -> None:
        """Set the share of the steps that are done after the next one, and its learning rates."""
        if isinstance(self.progress, Tensor):
            self.progress.fill_(progress)
        else:
            self.progress = progress
        share = self.schedule.rate(progress)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(share * rate)
            else:
                group["lr"] = share * rate

    def learn(self, cells: Tensor) -> Tensor:
        """Take a step, and return the loss terms, (n_terms,) or for stacked fits (n_terms, n_fits)."""
        minibatch = gathered(self.tensors, cells)
        if self.adversary and self.opponent:
            _train_adversary(self.adversary, self.opponent, self.network, minibatch)
        terms = self.model.loss_terms(self.network, minibatch, self.progress)
        self.names, values = list(terms), torch.stack(list(terms.values()))
        self.optimizer.zero_grad(set_to_none=True)
        values.sum().backward()
        self.optimizer.step()
        return values.detach()

    @torch.no_grad()
    def judge(self, cells: Tensor) -> Tensor:
        """Return the sum of the loss terms that are watched, () or (n_fits,)."""
        terms = self.model.loss_terms(self.network, gathered(self.tensors, cells), 1.0)
        return torch.stack([value for key, value in terms.items() if key not in self.model.unwatched]).sum(0)


def _train_adversary(
    adversary: Adversary, optimizer: torch.optim.Optimizer, network: nn.Module, minibatch: Mapping[str, Tensor]
) -> None:
    with torch.no_grad():
        shown = adversary.reads(network, minibatch)
    for _ in range(adversary.steps):
        optimizer.zero_grad(set_to_none=True)
        adversary.loss(network, shown).backward()
        optimizer.step()


@cache
def keep_freed_memory() -> None:
    """Let glibc, where it is the C library, keep freed buffers for the next step.

    By default it returns buffers of megabytes to the system, which has to hand out and clear the same memory, page by
    page, at the next step: a sixth of a step's time at 2,000 genes and 512 cells.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest value that glibc accepts
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)


class _Fit:
    """The cells, random numbers and curves of one network."""

    def __init__(
        self,
        network: nn.Module,
        seed: int,
        span: range,
        where: torch.device,
        n_validation: int,
        n_passes: int,
        warmup: float,
        environments: Tensor | None,
    ):
        self.network = network
        self.shuffle = torch.Generator().manual_seed(seed)
        self.noise = torch.Generator(where).manual_seed(seed)
        order = torch.randperm(len(span), generator=self.shuffle) + span.start
        self.held, self.kept = order[:n_validation], order[n_validation:]
        if environments is not None:
            self.held, self.kept = _with_every_label_kept(self.held, self.kept, environments)
        self.warm = min(math.ceil(warmup * n_passes), n_passes - 1)
        self.patience = max(1, math.ceil(PATIENCE * n_passes))
        self.outcome = Outcome(stopped="the end of its steps")
        self.ended = False
        self.best = float("inf")
        #: The smallest loss so far, after each pass.
        self.watched: list[float] = []

    def shuffled(self, strata: Tensor | None, n: int) -> Tensor:
        """Return ``n`` of the training cells, drawn anew, in the order of the next epoch."""
        order = torch.randperm(len(self.kept), generator=self.shuffle)[:n]
        cells = self.kept[order]
        return cells if strata is None else cells[_spread(strata[cells])]

    def take_in(self, epoch: int, curves: Mapping[str, float], watched: float, name: str) -> bool:
        """Note the loss terms of an epoch, end where it is time, and return whether the weights are the best so far."""
        outcome = self.outcome
        outcome.error = _not_finite(curves, name, epoch)
        if outcome.error is not None:
            self.ended = True
            return False
        for term, value in curves.items():
            outcome.history.setdefault(term, []).append(value)
        if watched < self.best or epoch < self.warm:
            # during the warm-up the last epoch counts as the best
            self.best = watched if epoch >= self.warm else float("inf")
            outcome.best_epoch = epoch
            self.watched.append(watched)
            outcome.converged = not self.still_improves()
            return True
        self.watched.append(self.best)
        outcome.converged = not self.still_improves()
        if epoch - outcome.best_epoch >= self.patience:
            outcome.stopped = f"no improvement for {self.patience} epochs after epoch {outcome.best_epoch}"
            outcome.converged = self.ended = True
        return False

    def still_improves(self) -> bool:
        """Return whether much of the fall of the loss lies in the second half of the passes."""
        first, middle, last = self.watched[0], self.watched[len(self.watched) // 2], self.watched[-1]
        return middle - last > STILL * (first - last) > 0

    def finish(self, weights: Weights) -> None:
        """Leave the network in eval mode with these weights."""
        self.network.load_state_dict(weights)
        self.network.eval()


def _with_every_label_kept(held: Tensor, kept: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the held-out and the kept cells, changed so that each label of ``held`` has a kept cell, where possible.

    If all cells of a label are held out, one of them is exchanged with a kept cell of the label that has most.
    """
    held, kept = held.clone(), kept.clone()
    n_labels = int(labels.max()) + 1
    for label in labels[held].unique().tolist():
        counts = labels[kept].bincount(minlength=n_labels)
        if not counts[label] and counts.max() > 1:
            out, into = (labels[held] == label).nonzero()[0], (labels[kept] == counts.argmax()).nonzero()[0]
            held[out], kept[into] = kept[into], held[out]
    return held, kept


def _joined(cells_of_fits: list[Tensor], stacked: bool) -> Tensor:
    """Return the cells of each fit, (n_fits, n), or (n,) for a single network."""
    return torch.stack(cells_of_fits) if stacked else cells_of_fits[0]


def _spread(labels: Tensor) -> Tensor:
    """Return an order of ``labels`` (n,) in which every stretch has them in proportion; ties keep their order."""
    by_label = torch.sort(labels, stable=True).indices
    counts = torch.unique_consecutive(labels[by_label], return_counts=True)[1]
    rank = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    place = (rank + 0.5) / counts.repeat_interleave(counts)
    return by_label[torch.sort(place, stable=True).indices]


def _not_finite(curves: Mapping[str, float], name: str, epoch: int) -> NonFiniteLoss | None:
    for term, value in curves.items():
        if not abs(value) < float("inf"):
            return NonFiniteLoss(
                f"{name}: loss term {term!r} is {value} at epoch {epoch}; "
                "try a smaller learning_rate or a larger minibatch"
            )
    return None
