"""The rules of the house: they hold, and each would be noticed if it were broken."""

import tomllib

import pytest

from tests import house


def test_the_house_keeps_its_rules():
    # metrics without a task and missing docstrings are said by name
    assert list(house.broken_rules()) == []
    assert len(house.arrows_between_rooms(house.graph())) < 45


@pytest.mark.parametrize(
    ("arrows", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [["a", "b"]]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": {"d"}}, [["a", "b", "c"], ["d", "e"]]),
    ],
)
def test_circles_are_found(arrows, expected):
    assert house.circles(arrows) == expected


@pytest.mark.parametrize(
    ("text", "n_lines"),
    [
        ("x = 1\n\n# a comment\ny = 2\n", 2),
        ('"""A docstring\n\nof three lines."""\n\nx = 1\n', 1),
        ('def f():\n    """What it does."""\n    return """a\n\nb"""\n', 4),
    ],
)
def test_lines_of_code_are_neither_blank_nor_comments_nor_docstrings(tmp_path, text, n_lines):
    file = tmp_path / "some.py"
    file.write_text(text)
    assert house.lines(file) == n_lines


def test_an_import_in_a_function_counts_and_names_the_module(tmp_path, monkeypatch):
    monkeypatch.setattr(house, "ROOT", tmp_path)
    (tmp_path / "bench").mkdir()
    file = tmp_path / "bench" / "low.py"
    file.write_text("def f():\n    from bench import cli\n    from bench.plan import make_plan\n    import numpy\n")
    assert house.imports(file, {"bench.cli", "bench.plan", "bench.low"}) == {"bench.cli", "bench.plan"}


def test_a_public_function_without_a_docstring_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(house, "ROOT", tmp_path)
    file = tmp_path / "some.py"
    body = "    def f(self):\n        pass\n\n    def _g(self):\n        pass\n"
    file.write_text(f'"""A module."""\n\n\nclass A:\n    """A."""\n\n{body}')
    assert list(house._undocumented(file)) == ["docstring: some.py:7 A.f has none"]


def test_every_package_is_installed():
    about = tomllib.loads((house.ROOT / "pyproject.toml").read_text())
    there = {file.parent for package in house.PACKAGES for file in house.files(package) if file.name == "__init__.py"}
    names = {str(folder.relative_to(house.ROOT)).replace("/", ".") for folder in there}
    assert names == set(about["tool"]["setuptools"]["packages"])
