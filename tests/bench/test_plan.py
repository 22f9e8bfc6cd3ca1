import dataclasses

import pytest

from bench.options import Options, read_budget
from bench.plan import choose_methods, choose_tasks, make_plan, with_budgets
from bench.plan.choose import choose
from bench.plan.plugins import PluginError
from bench.records import WHOLE, PlanError
from methods.errors import ConfigError
from metrics import UnknownName

NAMES = ["a/x", "a/y", "b/x"]
TAGS = {"a/x": {"ood", "real"}, "a/y": {"ood"}, "b/x": {"real"}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", NAMES),
        ("a/x", ["a/x"]),
        ("b/x, a/x", ["a/x", "b/x"]),
        ("ood", ["a/x", "a/y"]),
        ("*/x", ["a/x", "b/x"]),
        ("a", ["a/x", "a/y"]),
        ("real,a/y", NAMES),
    ],
)
def test_choose(spec, expected):
    assert choose("task", spec, NAMES, TAGS) == expected


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match=r"unknown method 'beta-vea'; did you mean 'beta-vae'"):
        choose_methods("beta-vea", "smoke", [])
    with pytest.raises(UnknownName, match=r"did you mean .*unseen-cell-type"):
        choose_tasks("unseen-cel-type")


def test_an_empty_choice_is_refused():
    with pytest.raises(PlanError, match="--methods is empty"):
        choose_methods(" , ", "smoke", [])


def test_settings_are_read_as_the_type_of_the_default():
    settings = ["beta-vae.beta=8", "beta-vae.hidden=[64, 32]", "beta-vae.activation=elu"]
    (spec,), _ = choose_methods("beta-vae", "smoke", settings)
    assert spec.changes == {"beta": 8, "hidden": [64, 32], "activation": "elu"}
    assert spec.label == "beta-vae@activation=elu@beta=8@hidden=[64, 32]"


@pytest.mark.parametrize(
    ("methods", "labels"),
    [
        ("beta-vae@beta=0,0.5,4", ["beta-vae@beta=0", "beta-vae@beta=0.5", "beta-vae@beta=4"]),
        ("vae,beta-vae@beta=1,2,pca", ["pca", "vae", "beta-vae@beta=1", "beta-vae@beta=2"]),
        (
            "beta-vae@beta=1,2@n_latent=5,6",
            [f"beta-vae@beta={beta}@n_latent={n}" for beta in (1, 2) for n in (5, 6)],
        ),
        ("beta-vae@beta=2,beta-vae", ["beta-vae@beta=2", "beta-vae"]),
        ("beta-vae@beta=2,2", ["beta-vae@beta=2"]),
        ("beta-vae@activation=elu", ["beta-vae@activation=elu"]),
    ],
)
def test_doses_are_rows_of_their_own(methods, labels):
    assert [spec.label for spec in choose_methods(methods, "default", [])[0]] == labels


def test_a_dose_is_read_and_refused_as_a_setting_is():
    (spec,), _ = choose_methods("beta-vae@beta=2", "default", ["beta-vae.n_latent=3"])
    assert spec.changes == {"beta": 2, "n_latent": 3}
    with pytest.raises(PlanError, match="beta-vae@beta: name@key=value"):
        choose_methods("beta-vae@beta", "default", [])
    with pytest.raises(ConfigError, match="no config key 'bta'"):
        choose_methods("beta-vae@bta=1", "default", [])
    with pytest.raises(UnknownName, match="'5'"):
        choose_methods("5,beta-vae", "default", [])


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ("beta-vae.bta=8", ConfigError, "beta-vae has no config key 'bta'"),
        ("beta-vae.beta=high", ConfigError, "beta-vae.beta='high'"),
        ("beta-vae.n_latent=2.5", ConfigError, "beta-vae.n_latent=2.5"),
        ("beta=8", PlanError, "method.key=value"),
        ("vae.n_latent", PlanError, "method.key=value"),
        ("pca.n_latent=3", UnknownName, "'pca'"),
    ],
)
def test_a_wrong_setting_is_refused(setting, error, message):
    with pytest.raises(error, match=message):
        choose_methods("beta-vae", "smoke", [setting])


def plan(methods="pca,no-change", tasks="reembedding/pancancer-sim", seeds=2, settings=()):
    specs, plugins = choose_methods(methods, "smoke", settings)
    return make_plan(specs, choose_tasks(tasks), "smoke", seeds, plugins, {})


def test_the_cross_has_every_method_unit_seed_and_control_once():
    jobs = plan().jobs
    run = [(job.role, job.method, job.unit, job.seed) for job in jobs if not job.skip]
    references = ("floor", "baseline", "structure", "ceiling")
    methods = [("method", "pca"), *(("reference", name) for name in references)]
    units = {job.unit for job in jobs if not job.skip}
    assert len(units) > 1
    assert sorted(run) == sorted((*m, unit, seed) for m in methods for unit in units for seed in (0, 1))
    (skipped,) = [job for job in jobs if job.skip]
    assert (skipped.method, skipped.unit) == ("no-change", WHOLE)
    assert skipped.skip == "no-change cannot embed, which reembedding needs"


def test_a_task_asks_for_variants_of_methods_once():
    tasks = "unseen-cell-type/ifn-sim,unseen-perturbation/doubles-sim"

    def labels(methods, settings=()):
        found = {}
        for job in plan(methods, tasks, 1, settings).jobs:
            if job.role == "method":
                found.setdefault(job.task.partition("/")[0], set()).add(job.method)
        return found

    both = {"pca", "pca@shift=regression"}
    assert labels("pca") == {"unseen-cell-type": both, "unseen-perturbation": {"pca"}}
    assert labels("pca@shift=regression,pca")["unseen-cell-type"] == both
    assert labels("pca", ["pca.n_latent=3"])["unseen-cell-type"] == {
        "pca@n_latent=3",
        "pca@n_latent=3@shift=regression",
    }
    assert labels("pca", ["pca.shift=mean"])["unseen-cell-type"] == {"pca@shift=mean"}
    assert labels("ridge-shift")["unseen-cell-type"] == {"ridge-shift"}


def test_ids_are_unique_and_the_same_each_time():
    first, second = plan().jobs, plan().jobs
    assert len({job.id for job in first}) == len(first)
    assert [job.id for job in first] == [job.id for job in second]
    assert plan().invocation == plan().invocation != plan(seeds=1).invocation


def test_an_id_changes_with_all_that_a_result_depends_on():
    job = plan().jobs[0]
    for field, value in {
        "config": {"n_latent": 3},
        "task_version": 99,
        "unit": "other",
        "seed": 7,
        "preset": "paper",
        "method_digest": "x",
        "task_digest": "x",
        "data_digest": "x",
    }.items():
        assert dataclasses.replace(job, **{field: value}).with_id().id != job.id
    assert dataclasses.replace(job, plugins=("elsewhere.py",)).with_id().id == job.id


def test_what_a_task_fixes_gives_way_to_what_the_user_sets():
    def sizes(settings):
        jobs = plan("pca", "latent-recovery/sparse-shift", settings=settings).jobs
        return {job.config["n_latent"] for job in jobs if job.role == "method"}

    assert sizes([]) == {15}
    assert sizes(["pca.n_latent=4"]) == {4}


def test_absent_data_are_said_with_the_command_that_gets_them(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    made = plan(tasks="reembedding/pancancer-sim,reembedding/tcga-paired")
    assert {job.task for job in made.jobs} == {"reembedding/pancancer-sim"}
    assert "python -m bench data fetch tcga-paired" in made.absent["reembedding/tcga-paired"]


def test_a_plugin_that_raises_is_its_cause(plugin):
    file = plugin("raise RuntimeError('not today')")
    with pytest.raises(PluginError) as raised:
        choose_methods("pca", "smoke", [], [str(file)])
    assert str(raised.value.__cause__) == "not today"


@pytest.mark.parametrize(
    ("text", "address", "message"),
    [
        (None, "absent.py:A", "there is no file"),
        ("class A: pass", "plugin.py:A", "'A' is no Method in that file; it has none"),
        (
            "from methods.base import Method\nclass A(Method): pass",
            "plugin.py:B",
            "'B' is no Method .* it has Method, A",
        ),
        ("from methods.base import Method\nclass A(Method): pass", "plugin.py:A", "the class has no name"),
    ],
)
def test_a_file_without_the_method_is_refused(plugin, tmp_path, monkeypatch, text, address, message):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        plugin(text)
    with pytest.raises(PlanError, match=message):
        choose_methods(address, "smoke", [])


def test_a_budget_makes_a_row_of_each_network_for_each_multiple_of_its_steps():
    specs, _ = choose_methods("vae,lord,pca", "default", [])
    found = with_budgets(specs, "default", (0.1, 1.0, 3.0))
    assert [spec.label for spec in found] == [
        "pca",
        "vae@steps=100",
        "vae",
        "vae@steps=3000",
        "lord@passes=20@steps=200",
        "lord",
        "lord@passes=600@steps=6000",
    ]
    with pytest.raises(PlanError, match=r"--budget: none of pca is trained by steps"):
        with_budgets(choose_methods("pca", "default", [])[0], "default", (0.1,))
    with pytest.raises(PlanError, match=r"--budget: the steps of vae@steps=50 are set already"):
        with_budgets(choose_methods("vae@steps=50", "default", [])[0], "default", (0.1,))


@pytest.mark.parametrize("text", ["0", "-1", "a", "0.1,,3", "inf", "nan"])
def test_a_budget_that_is_no_multiple_is_refused(text):
    with pytest.raises(PlanError, match=r"--budget .*: numbers above 0, such as 0.1,0.3,1,3, are needed"):
        read_budget(text)


def test_a_budget_is_part_of_a_request():
    options = Options(methods="vae,pca", tasks="unseen-cell-type/ifn-sim", budget=read_budget("0.5,1"))
    assert [spec.label for spec in options.chosen.methods] == ["pca", "vae@steps=500", "vae"]


def test_a_method_that_cannot_compose_is_not_fitted_for_combinations():
    specs, _ = choose_methods("vae,trvae", "smoke", [])
    jobs = make_plan(specs, choose_tasks("unseen-perturbation/doubles-sim"), "smoke", 1, (), {}).jobs
    skipped = {job.skip for job in jobs if job.name == "trvae"}
    assert skipped == {"trvae cannot predict combinations of environments, which unseen-perturbation needs"}
    assert {job.skip for job in jobs if job.name == "vae"} == {""}
