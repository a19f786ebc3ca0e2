"""The shape of the library: who imports whom, which names are public, what their docstrings say, how long files are."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest
from running import run_python

import xpnet
from xpnet import parallel, plotting
from xpnet.gradcheck.report import ParameterCheck

PACKAGE = Path(xpnet.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path for path in SOURCES}
LIBRARIES = {"numpy", "cupy", "torch", "jax", "array_api_strict"}

# what each module of the mathematics may import from the package; each may also use the standard library
COMPUTES = {
    "functions": set(),
    "arrays": {"functions"},
    "describing": {"functions"},
    "state": set(),
    "losses": {"functions"},
    "layers": {"functions", "arrays", "describing"},
    "output_layers": {"functions", "layers"},
    "steps": {"functions", "arrays"},
    "moves": {"functions", "arrays", "workers"},
    "derivatives": {"functions", "arrays", "steps"},
    "gradients": {"functions", "arrays", "steps", "moves"},
    "stacks": {"functions", "layers", "moves"},
    "trials": {"functions", "arrays", "layers", "stacks", "state", "moves"},
    "differences": {"describing", "functions", "layers", "layer_state", "moves", "steps", "stacks", "trials", "state"},
    "parameters": {"functions", "arrays", "describing", "layers", "backend"},  # backend for where arrays lie in memory
    "modes": {"parameters"},
    "layer_state": {"functions", "layers", "parameters"},
    "training_layers": {"functions", "layers", "backend"},  # backend for its random numbers
    "networks": {
        *("arrays", "describing"),
        *("functions", "layers", "output_layers", "gradients", "stacks", "differences", "parameters"),
        *("modes", "layer_state"),
        "backend",  # for its random numbers and where new arrays go
    },
    "book_networks": {"functions", "arrays", "layers", "networks", "backend"},  # backend for what new weights are
    "gradcheck.host": {"functions", "arrays", "backend"},
    "gradcheck.contracts": {"functions", "layer_state", "gradcheck.host"},
    "gradcheck.subjects.networks": {
        *("functions", "arrays", "layers", "layer_state", "networks", "state", "backend"),
        *("gradcheck.contracts", "gradcheck.host"),
    },
    "gradcheck.subjects.arguments": {"functions"},
    "gradcheck.subjects.calls": {
        *("functions", "arrays", "layer_state", "state", "backend"),
        *("gradcheck.contracts", "gradcheck.host", "gradcheck.subjects.arguments"),
    },
    "gradcheck.subjects.claims": {"gradcheck.subjects.arguments", "gradcheck.subjects.calls"},
    "gradcheck.subjects.layer_calls": {
        *("functions", "arrays", "layers", "state", "gradcheck.subjects.arguments", "gradcheck.subjects.calls"),
    },
    "gradcheck.subjects.torch_functions": {
        *("layer_state", "gradcheck.subjects.arguments", "gradcheck.subjects.calls"),
    },
    "gradcheck.subjects.jax_functions": {"layer_state", "gradcheck.subjects.arguments", "gradcheck.subjects.calls"},
    "gradcheck.subjects": {
        *("arrays", "describing", "state", "gradcheck.subjects.arguments", "gradcheck.subjects.claims"),
        *("gradcheck.subjects.layer_calls", "gradcheck.subjects.networks"),
    },
    "gradcheck.overlooked": {"functions", "arrays", "layers", "state", "backend"},
    "gradcheck.noise": {"functions", "backend", "gradcheck.host"},
    "gradcheck.grain": {"backend", "gradcheck.contracts"},
    "gradcheck.measuring": {
        *("functions", "arrays", "moves", "steps", "workers", "gradcheck.grain", "gradcheck.host", "gradcheck.noise"),
    },
    "gradcheck.verdicts": {"functions"},
    "gradcheck.directions": {"functions", "backend", "gradcheck.measuring", "gradcheck.verdicts"},
    "gradcheck.elsewhere": {
        *("functions", "backend", "gradcheck.contracts", "gradcheck.host", "gradcheck.measuring"),
    },
    "gradcheck.kinks": {"functions", "backend", "gradcheck.elsewhere", "gradcheck.host", "gradcheck.measuring"},
    "gradcheck.looks": {
        *("functions", "backend", "gradcheck.contracts", "gradcheck.directions", "gradcheck.elsewhere"),
        *("gradcheck.host", "gradcheck.kinks"),
        *("gradcheck.measuring", "gradcheck.noise", "gradcheck.roundoff", "gradcheck.verdicts"),
    },
    "gradcheck.roundoff": {"functions", "gradcheck.verdicts"},
    "gradcheck.jacobians": {"functions", "gradcheck.verdicts"},
    "gradcheck.samples": {
        *("functions", "backend", "gradcheck.directions", "gradcheck.looks", "gradcheck.verdicts"),
    },
    "gradcheck.audit": {"functions", "backend", "gradcheck.measuring", "gradcheck.verdicts"},
    "gradcheck.untested": {"functions", "gradcheck.directions", "gradcheck.elsewhere", "gradcheck.verdicts"},
    "gradcheck.kept": {
        *("functions", "backend", "gradcheck.contracts", "gradcheck.directions", "gradcheck.elsewhere"),
        *("gradcheck.measuring", "gradcheck.verdicts"),
    },
    "gradcheck.page": {"gradcheck.verdicts"},
    "gradcheck.report": {"gradcheck.page"},
    "gradcheck.census": {"functions", "backend", "gradcheck.report", "gradcheck.verdicts"},
    "gradcheck": {
        *("backend", "steps", "state", "gradcheck.audit", "gradcheck.census", "gradcheck.contracts"),
        *("gradcheck.jacobians", "gradcheck.kept", "gradcheck.samples", "gradcheck.subjects"),
        *("gradcheck.overlooked", "gradcheck.report", "gradcheck.untested", "gradcheck.verdicts"),
    },
}
BELOW_ALL = {"annotations", "scalars"}  # which import nothing of the package themselves
ALLOWED = {
    **COMPUTES,
    "scalars": set(),
    "command_line": set(),
    "capturing": set(),
    "repeating": {"arrays", "backend", "layer_state", "state"},
    "looping": {"arrays"},
    "replaying": {"arrays", "repeating"},
    "compiling": {"arrays", "capturing", "looping", "repeating", "replaying"},
    "diagnosis": {"arrays", "functions", "backend", "state"},
    "batches": {"backend"},  # for its random numbers
    "records": {"batches", "describing"},
    "training": {"arrays", "backend", "batches", "compiling", "diagnosis", "records"},
    "saving": {"arrays", "backend", "describing", "functions", "records", "__version__"},
    "annotations": set(),
    "installing": set(),
    "opening": {"installing"},
    "backend": {"opening"},
    "watchdog": set(),
    "ranks": {"watchdog"},
    "agreement": {"arrays", "backend", "functions", "state", "__version__"},
    "parallel": {"agreement", "backend", "describing", "diagnosis", "functions", "ranks"},
    "workers": {"backend", "describing"},
    "datasets": {"datasets.mnist"},
    "datasets.mnist": {"backend", "functions"},
}
# what checks PyTorch's and JAX's own differentiation has to call it; nothing else may, and nothing imports these two
# modules but where an argument is of that library
ADAPTERS = {"gradcheck.subjects.torch_functions": "torch", "gradcheck.subjects.jax_functions": "jax"}
WITHOUT_ARRAYS = {"losses", "layers", "output_layers"}  # they find everything in functions, array_api_compat included

PROMISED = [
    *("sum_squared_error", "mean_squared_error", "cross_entropy_error"),
    *("identity_function", "step_function", "sigmoid", "relu", "softmax", "log_softmax", "one_hot"),
    *("numerical_diff", "tangent_line", "numerical_gradient", "gradient_descent"),
    *("MulLayer", "AddLayer", "Relu", "Sigmoid", "Affine", "SoftmaxWithLoss", "IdentityWithLoss"),
    *("SimpleNet", "TwoLayerNet", "check_gradients", "load_mnist", "train"),
    *("save_parameters", "load_parameters", "save_training", "load_training"),
]


def imports(tree):
    """Yield (module, level) for every import in ``tree``, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, 0
        elif isinstance(node, ast.ImportFrom):
            if node.module is None:
                for alias in node.names:
                    yield alias.name, node.level
            else:
                yield node.module, node.level


def inside_and_outside(name, tree):
    """Return which modules of the package and which foreign top-level packages ``tree`` imports."""
    package = name if MODULES[name if name in MODULES else f"{name}.__init__"].name == "__init__.py" else ""
    package = package or name.rpartition(".")[0]
    inside, outside = set(), set()
    for module, level in imports(tree):
        if level:
            parts = package.split(".") if package else []
            inside.add(".".join([*parts[: len(parts) - level + 1], module]))
        elif module.partition(".")[0] == "xpnet":
            inside.add(module.partition(".")[2])
        else:
            outside.add(module.partition(".")[0])
    return inside, outside


def parse(name):
    path = MODULES.get(name) or MODULES[f"{name}.__init__"]
    return ast.parse(path.read_text(encoding="utf-8"))


def existing(names):
    return [name for name in names if name in MODULES or f"{name}.__init__" in MODULES]


# ── Imports run downwards ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", existing(ALLOWED))
def test_a_module_imports_only_what_lies_below_it(name):
    inside, _ = inside_and_outside(name, parse(name))
    inside -= BELOW_ALL
    assert inside <= ALLOWED[name], f"{name} may not import {', '.join(sorted(inside - ALLOWED[name]))}"


@pytest.mark.parametrize("name", existing([*COMPUTES, "training"]))
def test_mathematics_imports_no_array_library(name):
    _, outside = inside_and_outside(name, parse(name))
    foreign = outside - sys.stdlib_module_names
    allowed = set() if name in WITHOUT_ARRAYS else {"array_api_compat"}
    if name == "gradcheck":
        allowed.add("tqdm")  # a check may take minutes, and shows a bar then
    allowed |= {ADAPTERS.get(name)}
    assert foreign <= allowed, f"{name} may not import {', '.join(sorted(foreign - allowed))}"


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_reached_by_its_library_alone(name):
    """No module imports it; the one that does so by name asks whether an argument is of that library."""
    for other in MODULES:
        inside, _ = inside_and_outside(other.removesuffix(".__init__"), parse(other))
        assert name not in inside
    module = name.rpartition(".")[2]
    naming = [other for other, path in MODULES.items() if f'"{module}"' in path.read_text(encoding="utf-8")]
    assert naming == ["gradcheck.subjects.__init__"]


def test_every_module_has_its_place():
    """A new module needs a row in the table above, or is one of those that nothing below may import."""
    packages = {f"{name}.__init__" for name in ("datasets", "gradcheck", "gradcheck.subjects")}
    packages |= {f"plotting.{name}" for name in ("__init__", "axes", "functions", "learning", "tiles")}
    known = {*ALLOWED, *packages, "__init__", "showing", "__main__"}
    assert set(MODULES) <= known, f"give {', '.join(sorted(set(MODULES) - known))} its place in the table"


def names_of_libraries(tree):
    """Yield the libraries that ``tree`` names in a comparison, a match, or a question such as is_cupy_array."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Compare, ast.match_case)):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and part.value in LIBRARIES:
                    yield part.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
            for argument in node.args:
                if isinstance(argument, ast.Constant) and str(argument.value).partition(":")[0] in LIBRARIES:
                    yield argument.value
        elif isinstance(node, ast.alias) and re.match(r"is_(numpy|cupy|torch|jax|array_api_strict)_", node.name):
            yield node.name


# the one place with faster ways for one library, each tested for equality with the general way
FAST_WAYS = {}


@pytest.mark.parametrize("name", [name for name in MODULES if name != "backend"])
def test_only_the_backend_module_asks_which_library_it_is(name):
    assert set(names_of_libraries(parse(name))) <= FAST_WAYS.get(name, set())


@pytest.mark.parametrize(
    "planted",
    [
        "if backend == 'cupy': pass",
        "fast = library in ('numpy', 'torch')",
        "match library:\n    case 'jax': pass",
        "if backend.name.startswith('cupy:'): pass",
        "from array_api_compat import is_cupy_array",
    ],
)
def test_a_question_for_the_library_is_found(planted):
    assert list(names_of_libraries(ast.parse(planted)))


@pytest.mark.parametrize(
    ("name", "planted", "inside", "outside"),
    [
        ("layers", "def f():\n    import numpy as np", set(), {"numpy"}),
        ("layers", "from cupy.linalg import norm", set(), {"cupy"}),
        ("layers", "from .networks import Network", {"networks"}, set()),
        ("layers", "from . import networks", {"networks"}, set()),
        ("layers", "import xpnet.networks", {"networks"}, set()),
        ("datasets.mnist", "from ..layers import Relu", {"layers"}, set()),
        ("datasets.mnist", "from .other import x", {"datasets.other"}, set()),
        ("datasets", "from .mnist import load_mnist", {"datasets.mnist"}, set()),
    ],
)
def test_every_form_of_import_is_seen(name, planted, inside, outside):
    assert inside_and_outside(name, ast.parse(planted)) == (inside, outside)


@pytest.mark.parametrize("asked", ["", "numpy", "cupy", "torch", "jax"])
def test_importing_the_library_imports_no_array_library(asked):
    code = "import sys, xpnet; print(*sys.modules)"
    run = run_python("-W", "error", "-c", code, XPNET_BACKEND=asked)
    loaded = set(run.stdout.split())
    assert "xpnet.networks" in loaded
    assert not loaded & (LIBRARIES | {"matplotlib", "scipy", "tqdm"})
    assert "xpnet.gradcheck" not in loaded, "what only checks need is imported when it is asked for"


def test_the_page_of_files_says_what_each_module_says():
    page = (PACKAGE.parent / "docs" / "files.md").read_text(encoding="utf-8")
    for name, path in MODULES.items():
        first_line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]
        where = path.relative_to(PACKAGE.parent).as_posix()
        assert f"| `{where}` | {first_line} |" in page, f"docs/files.md: give {name} its line"


# ── Public names ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", PROMISED)
def test_a_promised_name_is_public(name):
    assert name in xpnet.__all__
    assert callable(getattr(xpnet, name))


def test_the_list_of_public_names_is_complete_and_true():
    assert len(set(xpnet.__all__)) == len(xpnet.__all__)
    for name in xpnet.__all__:
        assert hasattr(xpnet, name), f"{name} is listed but not there"
        assert not name.startswith("_")
    found = {name for name, value in vars(xpnet).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert found == set(xpnet.__all__)


def test_a_name_that_is_not_there_is_told_as_of_any_module():
    assert set(xpnet.__all__) <= set(dir(xpnet))
    with pytest.raises(AttributeError, match=r"module 'xpnet' has no attribute 'check_gradient'"):
        xpnet.check_gradient


# ── Annotations ─────────────────────────────────────────────────────────────────────────────────────────────────────


def annotated_callables():
    """Yield (name, function) for all that a caller may call: functions, methods, and how objects are made."""
    for home, names in ((xpnet, xpnet.__all__), (plotting, plotting.__all__), (parallel, parallel.__all__)):
        for name in names:
            value = getattr(home, name)
            if inspect.isfunction(value):
                yield f"{value.__module__}.{name}", value
            elif inspect.isclass(value):
                for attribute, member in vars(value).items():
                    member = member.fget if isinstance(member, property) else member
                    public = not attribute.startswith("_") or attribute == "__init__"
                    if public and inspect.isfunction(member) and member.__module__.startswith("xpnet"):
                        yield f"{value.__module__}.{name}.{attribute}", member


ANNOTATED = dict(annotated_callables())


@pytest.mark.parametrize("name", ANNOTATED)
def test_a_public_signature_is_annotated(name):
    signature = inspect.signature(ANNOTATED[name])
    missing = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name != "self"]
    missing += ["return"] if signature.return_annotation is signature.empty else []
    assert not missing, f"{name} says no type of {', '.join(missing)}"


def test_a_type_checker_is_told_that_there_are_annotations():
    assert (PACKAGE / "py.typed").exists()


# ── Docstrings ──────────────────────────────────────────────────────────────────────────────────────────────────────

# plumbing and records: nothing in them comes from the book or a paper
WITHOUT_SOURCE = {"Backend", "BackendError", "to_numpy", "why_unusable", "EpochRecord", "GradientCheck"} | {
    *("save_parameters", "load_parameters", "save_training", "load_training", "TrainingState", "TrainingError"),
    "CompileError",
}


def public_callables():
    """Yield (qualified name, object, class or None) for every public function, class and method."""
    for name in xpnet.__all__:
        value = getattr(xpnet, name)
        yield name, value, None
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                if isinstance(member, property):
                    member = member.fget
                if not attribute.startswith("_") and inspect.isfunction(member):
                    yield f"{name}.{attribute}", member, value


CALLABLES = {name: (value, owner) for name, value, owner in public_callables()}


def raised_by(function):
    """Return the names of the exceptions that ``function`` raises itself, and whether it calls a validator of ours."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))
    names, validates = set(), False
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            names.add(ast.unparse(node.exc.func))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            validates |= bool(re.fullmatch(r"_?require_\w+|as_targets|random_generator", node.func.id))
    return names, validates


@pytest.mark.parametrize("name", CALLABLES)
def test_a_public_callable_has_a_docstring_of_its_own(name):
    value, _ = CALLABLES[name]
    text = value.__doc__
    assert text
    assert text.strip()
    assert re.match(r".+[.:…]$", text.strip().splitlines()[0]), "the first line is a sentence"


@pytest.mark.parametrize("name", [name for name in CALLABLES if name.partition(".")[0] not in WITHOUT_SOURCE])
def test_a_public_callable_names_its_source(name):
    value, owner = CALLABLES[name]
    texts = [value.__doc__ or ""] + ([owner.__doc__ or ""] if owner else [])
    assert any(re.search(r"^ *Source: \S+", text, re.MULTILINE) for text in texts)


@pytest.mark.parametrize("name", CALLABLES)
def test_a_docstring_says_what_raises(name):
    value, owner = CALLABLES[name]
    own_code = value
    if inspect.isclass(value):
        if "__init__" not in vars(value) or not inspect.isfunction(vars(value)["__init__"]):
            return
        own_code = value.__init__
    try:
        names, validates = raised_by(own_code)
    except (OSError, IndentationError):
        return
    text = (value.__doc__ or "") + ((owner.__doc__ or "") if owner else "")
    missing = {error for error in names if not error.startswith("_") and error not in text}
    assert not missing, f"the docstring does not mention {', '.join(sorted(missing))}"
    if names or validates:
        assert re.search(r"\b[Rr]aises\b", text)


@pytest.mark.parametrize("name", MODULES)
def test_literals_end_where_a_page_shows_them_end(name):
    """Of ``EpochRecord`` with a letter behind it, a page would show the backticks."""
    for node in ast.walk(parse(name.removesuffix(".__init__"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            outside = (ast.get_docstring(node) or "").split("``")[::2]
            assert not [text for text in outside[1:] if re.match(r"\w", text)]


FEW = 4  # arguments, which the sentences of a docstring can describe
SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns", "Examples")


def sections(text):
    """Return {title: {what its lines name}} of the numpydoc sections of a docstring, in order."""
    parts = re.split(rf"(?m)^({'|'.join(SECTIONS)})\n-+\n", inspect.cleandoc(text or ""))
    named = (re.findall(r"(?m)^(?! |>>>)(.+?)(?: : .*)?$", lines) for lines in parts[2::2])
    return {title: ", ".join(lines).split(", ") for title, lines in zip(parts[1::2], named, strict=True)}


def described():
    """Yield (name, docstring, arguments) of what takes more than a few arguments."""
    for name, value in ANNOTATED.items():
        arguments = [p for p in inspect.signature(value).parameters if p != "self"]
        if len(arguments) > FEW:
            owner = name.removesuffix(".__init__")
            text = (
                value.__doc__ if owner == name else getattr(sys.modules[value.__module__], owner.split(".")[-1]).__doc__
            )
            yield owner, text, arguments
    for record in (xpnet.EpochRecord, xpnet.TrainingState, ParameterCheck):
        yield record.__name__, record.__doc__, list(record._fields)


DESCRIBED = {name: (text, arguments) for name, text, arguments in described()}


@pytest.mark.parametrize("name", DESCRIBED)
def test_many_arguments_are_described_one_by_one(name):
    text, arguments = DESCRIBED[name]
    found = sections(text)
    assert list(found) == [title for title in SECTIONS if title in found], "sections are in the order of numpydoc"
    assert [each.lstrip("*") for each in found.get("Parameters") or found["Attributes"]] == arguments


def test_sections_are_read():
    text = "Do it.\n\n    Parameters\n    ----------\n    x, *more : arrays\n        Words: more.\n    h\n        W.\n"
    assert sections(text) == {"Parameters": ["x", "*more", "h"]}
    assert {"xpnet.training.train", "xpnet.book_networks.TwoLayerNet", "xpnet.networks.Network.numerical_gradient"} <= {
        *DESCRIBED
    }


# ── Size ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_short(name):
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= 300, f"{name} has {lines} lines; which second idea has moved in?"


LONGEST, MOST_BRANCHES = 40, 12
REASON = re.compile(r"# In one piece: \w+( \S+){4,}")  # stands in a longer function, and says why it is one
SCRIPTS = sorted((PACKAGE.parent / "examples").glob("*.py"))
BRANCHES = (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler, ast.comprehension, ast.match_case)


def functions(source):
    """Yield (name, lines of code, branches, whether a reason is given) of every function, methods included."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            within = [line.strip() for line in lines[body[0].lineno - 1 : node.end_lineno]] if body else []
            inner = list(ast.walk(node))
            branches = sum(isinstance(part, BRANCHES) for part in inner)
            branches += sum(len(part.values) - 1 for part in inner if isinstance(part, ast.BoolOp))
            reason = any(REASON.search(line) for line in lines[node.lineno - 1 : node.end_lineno])
            yield node.name, sum(not line.startswith("#") for line in within if line), branches, reason


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda path: path.relative_to(PACKAGE.parent).as_posix())
def test_a_function_is_short_or_says_why_not(path):
    for name, length, branches, reason in functions(path.read_text(encoding="utf-8")):
        assert (length <= LONGEST and branches <= MOST_BRANCHES) or reason, (
            f"{name} has {length} lines of code and {branches} branches: take it apart, "
            "or begin a comment in it with '# In one piece:' and say why"
        )


def test_lines_and_branches_are_counted():
    source = 'def f(x):\n    """Words."""\n    # why\n    return x if x and x > 1 or not x else [i for i in x]\n'
    assert list(functions(source)) == [("f", 1, 4, False)]
    longer = "def f(x):\n    # In one piece: these steps are one idea\n" + 41 * "    x += 1\n"
    assert list(functions(longer)) == [("f", 41, 0, True)]
