"""The registry: decorator, base class, duplicates, nearest names, files of the user's, entry points."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from benchmark import registry
from benchmark.common.errors import BenchError
from benchmark.method import METHODS, Method
from benchmark.registry import Registry, load_files, load_plugins

SOURCE = """
from benchmark import Method, register_method

@register_method('{}')
class Mine(Method):
    def contrast(self, embeddings, keys):
        return {{}}
"""


class Base:
    pass


def test_registers_under_a_name() -> None:
    things = Registry("thing", Base)

    @things.register("first")
    class First(Base):
        pass

    assert things["first"] is First
    assert First.name == "first"  # type: ignore[attr-defined]
    assert things.names() == ["first"]


def test_refuses_other_classes_and_taken_names() -> None:
    things = Registry("thing", Base)
    with pytest.raises(BenchError, match="not a subclass of Base"):
        things.register("wrong")(int)  # type: ignore[arg-type]
    things.register("taken")(type("A", (Base,), {}))
    with pytest.raises(BenchError, match=r"thing 'taken' .*: the name is taken by a class in"):
        things.register("taken")(type("B", (Base,), {}))


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(BenchError) as caught:
        METHODS["clp"]
    assert "did you mean 'clip'" in str(caught.value)
    assert "msd" in str(caught.value)


def test_a_file_of_the_users_registers(tmp_path: Path) -> None:
    path = tmp_path / "from_a_file.py"
    path.write_text(SOURCE.format("from_a_file"))
    try:
        load_files([path])
        load_files([path])  # the same file again is no duplicate
        assert issubclass(METHODS["from_a_file"], Method)
    finally:
        METHODS._classes.pop("from_a_file", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("import nothing_like_it", "ModuleNotFoundError"), ("def (", "SyntaxError")],
)
def test_a_file_that_does_not_load(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "broken.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BenchError, match=message) as caught:
        load_files([path])
    assert str(path) in str(caught.value)


def test_a_package_is_imported_with_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "an_installed_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text(SOURCE.format("installed"))
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("mine", "an_installed_package", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    load_plugins.cache_clear()
    try:
        assert "installed" in METHODS.names()
    finally:
        METHODS._classes.pop("installed", None)
        monkeypatch.undo()
        load_plugins.cache_clear()


def test_a_plugin_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "nothing_like_it", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    load_plugins.cache_clear()
    try:
        with pytest.raises(BenchError, match="plug-in 'theirs' \\(nothing_like_it\\) cannot be imported"):
            METHODS.names()
    finally:
        monkeypatch.undo()
        load_plugins.cache_clear()
