import pytest

from bench.describe import config_sources, list_of, show
from methods import METHODS
from methods.external import recipes
from metrics import METRICS, UnknownName
from tasks import DATASETS, TASKS, benchmark_names


def test_sources_are_the_comments_at_the_defaults():
    sources = config_sources(METHODS["beta-vae"])
    assert sources["beta"].startswith("Higgins et al. 2017")
    assert sources["learning_rate"].startswith("the largest; ours")
    assert config_sources(METHODS["ridge-shift"])["strengths"].startswith("decades")


@pytest.mark.parametrize("name", [*METHODS, *METRICS, *TASKS, *benchmark_names(), *DATASETS])
def test_everything_registered_can_be_shown(name):
    text = show(name)
    assert name.partition("/")[0] in text
    assert len(text.splitlines()) >= 4


def test_what_is_unknown_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match=r"did you mean .*displacement"):
        show("displacment")


def test_lists_hold_everything():
    assert [row[0] for row in list_of("methods")[1]] == [*METHODS, *recipes()]
    assert [row[0] for row in list_of("tasks")[1]] == benchmark_names()
    assert [row[0] for row in list_of("metrics")[1]] == list(METRICS)
