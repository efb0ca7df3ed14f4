"""Keys: which values and which changes of code make another one, and which do not."""

import enum
import hashlib
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmark.common.errors import BenchError
from benchmark.method import METHODS, Method
from benchmark.registry import load_files
from benchmark.store.hashing import digest, source_of, syntax_hash
from benchmark.task import TASKS


def test_a_digest_is_that_of_compact_json() -> None:
    """Fixed for good: the draws of the bootstrap are seeded with the digest of the patients."""
    value = {"b": [1, 2.5, None, True], "a": "é"}
    text = '{"a":"\\u00e9","b":[1,2.5,null,true]}'
    assert digest(value) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert digest(["p0", "p1"]) == hashlib.sha256(b'["p0","p1"]').hexdigest()[:16]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, True),
        ((1, 2), [1, 2], True),
        ({"a": 1}, {"a": 2}, False),
        ([1], [1.0], False),
        ([1], [True], False),
        (["ab"], ["a", "b"], False),
        ([None], ["None"], False),
        ("\udc80", "\udc81", False),
        ([["a"], "b"], [["a", "b"]], False),
    ],
)
def test_equal_values_have_equal_digests(one: Any, other: Any, equal: bool) -> None:
    assert (digest(one) == digest(other)) is equal


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize("value", [object(), Path("a"), {1, 2}, Colour.RED, b"a", np.arange(2), np.int64(1)])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    """Its text may change from run to run: that of an object holds its address."""
    with pytest.raises(TypeError):
        digest({"a": [value]})


@pytest.mark.parametrize("key", [1, None, True, 1.5])
def test_keys_that_json_writes_as_other_strings_are_refused(key: Any) -> None:
    with pytest.raises(TypeError, match="must be a string"):
        digest([{"a": {key: 1}}])


# The code of a plug-in

METHOD = '''"""A method."""

import math
import torch.nn.functional as F
from typing import TYPE_CHECKING

from benchmark import Method, register_method
from benchmark.losses import info_nce
from pkg_of_test.helper import SCALE

if TYPE_CHECKING:
    from torch import Tensor


@register_method("hashed")
class Hashed(Method):
    """Compares."""

    weight = 2.0
    """Of the loss."""

    def contrast(self, embeddings, keys):
        """The loss."""
        from pkg_of_test.lazy import shift
        # Scaled.
        loss = info_nce(embeddings["image"], embeddings["text"], self.weight * SCALE)
        return {"loss": F.relu(loss) + shift(math.pi)}
'''
HELPER = "from . import deep\n\nSCALE = 3.0 * deep.ONE\n"
DEEP = "import pkg_of_test.helper\n\nONE = 1.0\n"  # it imports its importer: a circle
LAZY = "def shift(x):\n    return x + 1\n"
FILES = {"__init__": "", "method": METHOD, "helper": HELPER, "deep": DEEP, "lazy": LAZY, "other": "X = 1\n"}


def forget(*packages: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]
    METHODS._classes.pop("hashed", None)
    importlib.invalidate_caches()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Write the package pkg_of_test with changed files, import it and return the hash of its method."""
    folder = tmp_path / "pkg_of_test"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    def hash_of(**changed: str) -> str:
        for name, content in (FILES | changed).items():
            (folder / f"{name}.py").write_text(content)
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        forget("pkg_of_test")
        return source_of(importlib.import_module("pkg_of_test.method").Hashed)

    yield hash_of
    forget("pkg_of_test")


def replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    "changed",
    [
        {"method": replaced(METHOD, "weight = 2.0", "weight = 2.5")},
        {"method": replaced(METHOD, "F.relu(loss)", "F.gelu(loss)")},
        {"method": replaced(METHOD, "math.pi", "math.tau")},
        {"method": replaced(METHOD, '"loss":', '"loss2":')},
        {"method": replaced(METHOD, "import info_nce", "import nt_xent as info_nce")},
        {"method": replaced(METHOD, "torch.nn.functional as F", "torch.nn as F")},
        {
            "method": replaced(METHOD, "helper import SCALE", "helper import OTHER as SCALE"),
            "helper": HELPER + "OTHER = 1",
        },
        {"helper": replaced(HELPER, "3.0", "4.0")},
        {"deep": replaced(DEEP, "1.0", "2.0")},
        {"lazy": replaced(LAZY, "+ 1", "- 1")},
        {"lazy": replaced(LAZY, "x + 1", "1 + x")},
        {"method": replaced(METHOD, "from pkg_of_test.lazy", "from pkg_of_test.lazy2"), "lazy2": LAZY},
    ],
)
def test_a_changed_formula_changes_the_hash(package: Callable[..., str], changed: dict[str, str]) -> None:
    before = package()
    assert package(**changed) != before
    assert package() == before


REFORMATTED = (
    METHOD.replace('"', "'")
    .replace("'''", '"""')
    .replace(
        "info_nce(embeddings['image'], embeddings['text'], self.weight * SCALE)",
        "info_nce(\n            embeddings['image'],\n            embeddings['text'], (self.weight * SCALE)\n        )",
    )
)


@pytest.mark.parametrize(
    "changed",
    [
        {"method": replaced(METHOD, "# Scaled.", "# Scaled by a constant.\n        # Another comment.")},
        {"method": replaced(METHOD, '"""Compares."""', '"""Compares images and texts."""')},
        {"method": replaced(METHOD, '"""Of the loss."""', "")},
        {"method": replaced(METHOD, '        """The loss."""\n', "")},
        {"method": replaced(METHOD, "from torch import Tensor", "from torch import Tensor\n    from .other import X")},
        {"method": REFORMATTED},
        {
            "method": replaced(
                METHOD,
                "import math\nimport torch.nn.functional as F",
                "from torch.nn import functional as F\nimport math",
            )
        },
        {"method": replaced(METHOD, "from pkg_of_test.helper", "from .helper")},
        {"method": METHOD + "import json\nfrom numpy import array\n"},
        {"helper": replaced(HELPER, "from . import deep", "import pkg_of_test.deep as deep")},
        {"other": "X = 2\n"},
        {"lazy": "# shifts\n" + LAZY},
    ],
)
def test_what_does_not_change_results_does_not_change_the_hash(
    package: Callable[..., str], changed: dict[str, str]
) -> None:
    assert package(**changed) == package()


def test_contents_that_change_places_change_the_hash(package: Callable[..., str]) -> None:
    use = METHOD.replace("import SCALE", "import SCALE, f\nfrom pkg_of_test.lazy import f as g")
    one, other = (
        "SCALE = 1\ndef f():\n    return 1\n",
        "SCALE = 1\ndef f():\n    return 2\n\ndef shift(x):\n    return x\n",
    )
    one += "\ndef shift(x):\n    return x\n"
    assert package(method=use, helper=one, lazy=other) != package(method=use, helper=other, lazy=one)


def test_moving_a_module_of_the_harness_keeps_the_hash(tmp_path: Path) -> None:
    for name, line in (("a", "from benchmark.losses import f"), ("b", "from benchmark.training.losses import f")):
        (tmp_path / f"{name}.py").write_text(f"{line}\n\ndef g(x):\n    return f(x)\n")
    assert syntax_hash(tmp_path / "a.py", "a") == syntax_hash(tmp_path / "b.py", "b")


def test_all_forms_of_import_are_followed(package: Callable[..., str]) -> None:
    for form in (
        "import pkg_of_test.other",
        "import pkg_of_test.other as o",
        "from pkg_of_test import other",
        "from pkg_of_test.other import X",
        "from pkg_of_test.other import *",
        "from . import other",
        "from .other import X as Y",
        "try:\n    from .other import X\nexcept ImportError:\n    X = 0",
        "class A:\n    def f(self):\n        from . import other",
        "if True:\n    pass\nelse:\n    from . import other",
    ):
        method = f"{form}\n{METHOD}"
        assert package(method=method) != package(method=method, other="X = 2\n"), form


def test_an_import_that_is_not_there_is_left_out(package: Callable[..., str]) -> None:
    method = (
        METHOD + "try:\n    import nothing_like_it.at_all\n    from .nothing import x\nexcept ImportError:\n    pass\n"
    )
    assert package(method=method) == package(method=method, other="X = 2\n")


def test_a_namespace_package_and_modules_without_files(
    package: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "made_up", ModuleType("made_up"))
    space = tmp_path / "space_of_test"
    space.mkdir()
    (space / "part.py").write_text("X = 1\n")
    method = f"import made_up\nfrom space_of_test import part\n{METHOD}"
    try:
        before = package(method=method)
        (space / "part.py").write_text("X = 2\n")
        assert package(method=method) != before
    finally:
        forget("space_of_test")


@pytest.mark.parametrize("own", [False, True])
def test_installed_distributions_are_not_followed_but_for_the_plugin_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    site = tmp_path / "lib" / "site-packages"
    package = site / "pkg_of_test"
    package.mkdir(parents=True)
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(tmp_path)
    for name, content in FILES.items():
        (package / f"{name}.py").write_text(content)
    path, module = package / "method.py", "pkg_of_test.method"
    if not own:
        path, module = tmp_path / "outside_of_test.py", "outside_of_test"
        path.write_text(METHOD)
    try:
        before = source_of(importlib.import_module(module).Hashed)
        (package / "lazy.py").write_text(LAZY + "Y = 1\n")
        assert (source_of(sys.modules[module].Hashed) != before) is own
        path.write_text(path.read_text() + "Y = 1\n")
        assert source_of(sys.modules[module].Hashed) != before
    finally:
        forget("pkg_of_test", "outside_of_test")


def test_a_class_without_a_file_is_refused() -> None:
    scope: dict[str, Any] = {"__name__": "__nowhere__", "Method": Method}
    exec("class Mine(Method):\n    pass", scope)
    with pytest.raises(BenchError, match=r"class Mine \(module __nowhere__\) has no source file"):
        source_of(scope["Mine"])


def test_a_base_of_the_plugins_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method of the harness is built on others in the same folder: simclr on clip."""
    assert len({source_of(METHODS[name]) for name in ("clip", "siglip", "msd", "simclr")}) == 4
    clip = Path(sys.modules[METHODS["clip"].__module__].__file__ or "")
    text = clip.read_text()
    before = source_of(METHODS["siglip"]), source_of(METHODS["msd"])
    real = Path.read_bytes
    changed = text.replace("info_nce(", "nt_xent(").encode()
    monkeypatch.setattr(Path, "read_bytes", lambda path: changed if path == clip.resolve() else real(path))
    assert source_of(METHODS["siglip"]) != before[0]
    assert source_of(METHODS["msd"]) == before[1]


# Plug-ins by path


BY_PATH = METHOD.replace("pkg_of_test.helper", "helper_of_test").replace("pkg_of_test.lazy", "lazy_of_test")


@pytest.fixture
def by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Write a plug-in and the modules beside it, load it by its path and return the hash of its method."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def hash_of(folder: str = "a", name: str = "method", scale: float = 3.0) -> str:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        (path / f"{name}.py").write_text(BY_PATH)
        (path / "helper_of_test.py").write_text(f"SCALE = {scale}\n")
        (path / "lazy_of_test.py").write_text(LAZY)
        forget("helper_of_test", "lazy_of_test")
        load_files([path / f"{name}.py"])
        return source_of(METHODS["hashed"])

    yield hash_of
    forget("helper_of_test", "lazy_of_test")


def test_a_plugin_by_path_finds_and_follows_what_lies_beside_it(by_path: Callable[..., str]) -> None:
    before = by_path()
    assert by_path(scale=4.0) != before
    assert by_path() == before
    METHODS._classes.pop("hashed")
    assert by_path(name="renamed") == before


def test_a_plugin_moved_elsewhere_keeps_its_key(by_path: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = by_path("a")
    monkeypatch.setattr(sys, "path", sys.path[:-1])
    METHODS._classes.pop("hashed")
    assert by_path("b") == before


PLUGIN = """
from benchmark import Method, register_method
from helper_of_test import NAME

@register_method(f"of_folder_{NAME}")
class Mine(Method):
    def contrast(self, embeddings, keys):
        return {}
"""


def test_two_plugins_with_a_module_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "helper_of_test.py").write_text(f"NAME = '{folder}'\n")
        paths.append(tmp_path / folder / "plugin.py")
        paths[-1].write_text(PLUGIN)
    try:
        load_files(paths[:1])
        with pytest.raises(
            BenchError, match=r"import helper_of_test finds .*a/helper_of_test\.py, not .*b/helper_of_test"
        ):
            load_files(paths[1:])
    finally:
        forget("helper_of_test")


def test_two_plugins_of_one_file_name_are_two_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    classes = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "plugin.py"
        path.write_text(
            f"from benchmark import Method, register_method\n\n@register_method('hashed_{folder}')\n"
            f"class Mine(Method):\n    def contrast(self, embeddings, keys):\n        return '{folder}'\n"
        )
        load_files([path])
        classes.append(METHODS[f"hashed_{folder}"])
    try:
        before = source_of(classes[0])
        assert before != source_of(classes[1])
        (tmp_path / "b" / "plugin.py").write_text("X = 1\n")
        assert source_of(classes[0]) == before
    finally:
        for folder in ("a", "b"):
            METHODS._classes.pop(f"hashed_{folder}")


# Versions of Python


def test_the_hash_is_the_same_on_all_versions_of_python(tmp_path: Path) -> None:
    """Constants, f-strings and empty fields are where the trees of two versions differ."""
    (tmp_path / "m.py").write_text(
        "def f(x: int, /, *a, k=1) -> str:\n    del (x, k)\n"
        '    return "a" f"b{x!r:>{k}}{{c}}" "d" + f"{x=}" + f"{x:}" + u"é\\u200b" + str(1e400) + str(b"a")\n'
        "async def g():\n    return [i async for i in x if ...]\n"
        "match x:\n    case {'a': None, **rest} if rest: pass\n    case [1, *_] | None: pass\n"
    )
    assert syntax_hash(tmp_path / "m.py", "m") == "34246f86ef219090"  # by 3.11.7, 3.12.1 and 3.13.0


def test_every_shipped_method_and_task_has_a_hash() -> None:
    hashes = {source_of(registry[name]) for registry in (METHODS, TASKS) for name in registry.names()}
    assert len(hashes) >= 10
    assert json.dumps(sorted(hashes))
