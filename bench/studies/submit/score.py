"""Score the answers of one or many methods as those of a method of this suite, and put them on the board."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rich.console import Console

from bench.jobs.execute import Done, estimate_of, execute, executor_for
from bench.jobs.executors.inline import InlineExecutor
from bench.jobs.runner import run_jobs
from bench.keep.store import Store
from bench.options import Options
from bench.plan.cross import make_plan
from bench.records import SUBMITTED, MethodSpec
from bench.studies.submit.answers import Answers, Refused, read_manifest
from bench.studies.submit.questions import ANSWERS, asked_by
from bench.studies.submit.split import MANIFEST
from methods import METHODS
from methods.base import Method
from tasks import TASKS
from tasks.datasets.memory import digest

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData


class Submitted(Method):
    """Answers that were computed elsewhere: a fit looks up what was asked, and nothing is trained here."""

    tags = frozenset({"submitted"})
    answers: ClassVar[Answers]

    @classmethod
    def depends(cls) -> str:
        """Return the SHA-256 of all answers."""
        return cls.answers.sha256

    def fit(self, data: AnnData, seed: int) -> Self:
        """Find the fit among those that were asked for."""
        place = digest(data), seed
        self.asked = next(asked for asked in self.answers.fits if (asked.digest, asked.seed) == place)
        submitted = f"submitted: fitted elsewhere, read from files with SHA-256 {self.answers.sha256}"
        for note in [submitted, *self.answers.notes]:
            self.note(note)
        return self

    def state(self) -> None:
        """Return None: answers are kept where they are."""

    def answer(self, ability: str, environment: str, data: AnnData) -> np.ndarray:
        """Return the answer to a question about these cells."""
        return self.answers.answer(self.asked, (ability, environment, digest(data)))


class Codes(Submitted):
    """Answers to ``embed``."""

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the codes (n_cells, n_latent)."""
        return self.answer("embed", "", data)


class Predictions(Submitted):
    """Answers to ``predict``."""

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the predicted expression (n_cells, n_genes)."""
        return self.answer("predict", target_environment, data)


class Both(Codes, Predictions):
    """Answers to both."""


CLASSES: dict[frozenset[str], type[Submitted]] = {
    frozenset({"embed"}): Codes,
    frozenset({"predict"}): Predictions,
    frozenset(ANSWERS): Both,
}


@dataclass(frozen=True)
class Scored:
    """How scoring ended: the run, and why methods were refused, by their names."""

    done: Done
    refused: dict[str, str]


def submissions(directory: Path, name: str) -> dict[str, Path]:
    """Return the methods in a directory, by name: the directory itself, or each of its directories with a manifest.

    Raises
    ------
    Refused
        There is none, or one name for several.
    """
    if (directory / MANIFEST).is_file():
        return {name or directory.resolve().name: directory}
    several = sorted(file.parent for file in directory.glob(f"*/{MANIFEST}"))
    if not several:
        raise Refused(f"{directory}: there is no {MANIFEST}, and in none of its directories; copy that of bench split")
    if name:
        raise Refused(f"--name {name}: {directory} holds {len(several)} methods, which are named by their directories")
    return {folder.name: folder for folder in several}


def score(task_name: str, directory: Path, name: str, options: Options, console: Console) -> Scored:
    """Check all answers, then score those that are right and write the board.

    Parameters
    ----------
    task_name
        ``task/dataset``.
    directory, name
        See :func:`submissions`.
    options
        Where results go; the answers' manifest says what is asked.

    Raises
    ------
    Refused
        No method has answers that can be scored, or methods answer different requests; nothing has been scored.
    """
    methods: dict[str, Path] = submissions(directory, name)
    manifests: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for method, place in methods.items():
        try:
            _check_name(method)
            manifests[method] = read_manifest(place)
            if manifests[method]["task"] != task_name:
                raise Refused(f"{place / MANIFEST}: it is of {manifests[method]['task']}, and {task_name} is scored")
        except Refused as error:
            refused[method] = str(error)
            manifests.pop(method, None)
    requests = {str({key: m[key] for key in ("preset", "seeds", "draws")}): m for m in manifests.values()}
    if len(requests) > 1:
        raise Refused(f"{directory}: its methods answer splits of {' and '.join(requests)}; score each by itself")
    right: dict[str, Answers] = {}
    for manifest in requests.values():
        fits = asked_by(task_name, manifest["preset"], manifest["seeds"], manifest["draws"])
        for method, its_own in manifests.items():
            answers = Answers(methods[method], fits)
            try:
                answers.check(its_own)
                right[method] = answers
            except Refused as error:
                refused[method] = str(error)
    if not right:
        raise Refused("\n".join(f"{method}: {reason}" for method, reason in refused.items()))
    for method, answers in right.items():
        for note in answers.notes:
            console.print(f"{method}: {note}", highlight=False, soft_wrap=True)
    (manifest,) = requests.values()
    return Scored(_run(task_name, manifest, right, options, console), refused)


def _check_name(name: str) -> None:
    if not name.isprintable() or name != name.strip() or set(name) & set(",@=") or name + SUBMITTED in METHODS:
        raise Refused(f"--name {name!r}: printable, without ',', '@', '=' or blanks around it, is needed")


def _run(
    task_name: str, manifest: dict[str, Any], right: dict[str, Answers], options: Options, console: Console
) -> Done:
    """Run the references as in any run, then the submissions in this process, which knows their answers."""
    abilities = frozenset(TASKS[task_name.partition("/")[0]].requires)
    store = Store(options.out)
    specs = []
    try:
        for method, answers in right.items():
            label = method + SUBMITTED
            METHODS.register(label, type("Answered", (CLASSES[abilities],), {"name": label, "answers": answers}))
            specs.append(MethodSpec.of(label, {}))
        with store.lock():
            index = store.index()
            plan = make_plan(
                specs, [task_name], manifest["preset"], manifest["seeds"], (), index, None, manifest["draws"]
            )
            store.write_index(index)
            references = [job for job in plan.jobs if job.role == "reference"]
            executor = executor_for(options, plan.sizes, lambda: estimate_of(store, plan, options.n_workers), console)
            run_jobs(references, store, executor, lambda: estimate_of(store, plan, options.n_workers), console)
            return execute(plan, store, InlineExecutor(), options, console, f"submitted × {task_name}")
    finally:
        for spec in specs:
            METHODS.forget(spec.name)
