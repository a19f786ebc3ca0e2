"""The gradient check tells right from wrong in a zoo of layers, in which autograd of PyTorch finds the same wrong."""

import contextlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import zoo
from zoo.cases import distance, dout_of, gradients, parameters_of, right_gradients, set_parameters
from zoo.contenders import CONTENDERS, verdict

from xpnet import check_gradients, get_backend, why_unusable

SEED = 0
DTYPES = ("float64", "float32")
CASES = zoo.cases(SEED, planted=2, wrong_scaled=1)
NAMES = list(dict.fromkeys(case.kind_name for case in CASES))
SOME = [case for i, case in enumerate(CASES) if not case.wrong or case.set in ("layers", "at kinks") or i % 3 == 0]
FIRM = [case for case in SOME if case.set != "scaled"]
SCALED = [case for case in CASES if case.set == "scaled" and case.factor in (1e-6, 1e-4, 1e2, 1e6)]
LIBRARIES = [
    pytest.param(name, marks=pytest.mark.skipif(bool(why_unusable(name)), reason=str(why_unusable(name))))
    for name in ("numpy", "torch")
]


def of(name, cases, dtype):
    """Return the right cases of a kind, and the wrong ones that can be told in ``dtype``."""
    mine = [case for case in cases if case.kind_name == name and dtype in case.dtypes]
    wrong = [case for case in mine if case.wrong and zoo.effect(case) >= zoo.tells(case, dtype)]
    return [case for case in mine if not case.wrong], wrong


@contextlib.contextmanager
def overflowing():
    """Let wrong layers overflow: exp(exp(x)) for exp(x)."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        yield


def check(case, library, dtype):
    with overflowing():
        return check_gradients(*case.build(get_backend(library).xp, dtype), progress=False)


def accused(cases, library, dtype):
    """Return {name: report} of those right cases that do not pass."""
    found = {case.name: check(case, library, dtype) for case in cases}
    return {name: repr(result) for name, result in found.items() if not result}


def missed(cases, library, dtype):
    """Return {name: report} of those wrong cases that pass."""
    found = {case.name: check(case, library, dtype) for case in cases}
    return {name: repr(result) for name, result in found.items() if result}


# ── The zoo is what it says ──────────────────────────────────────────────────────────────────────────────────────────


def test_there_are_kinds_enough_each_wrong_in_three_ways_of_its_own():
    assert len(zoo.KINDS) >= 35
    assert len({kind.name for kind in zoo.KINDS}) == len(zoo.KINDS)
    for name in (kind.name for kind in zoo.KINDS):
        for dtype in DTYPES:
            right, wrong = of(name, CASES, dtype)
            assert right
            assert len({case.wrong for case in wrong}) >= 3, name


def autograd(case):
    """Return the gradients of the forward of ``case`` by PyTorch, after a call with other values."""
    torch = get_backend("torch").xp
    net, x, t = case.build(torch)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in parameters_of(net).items()}
    set_parameters(net, leaves)
    if hasattr(net, "params"):
        out = net.loss(x, t)
    else:
        leaves["x"] = x = x.requires_grad_()
        out = net.forward(x, *(() if t is None else (t,)))
        out = torch.sum(out * dout_of(out.detach()))
    out.backward()
    return {name: leaf.grad.numpy() for name, leaf in leaves.items()}


@pytest.mark.skipif(bool(why_unusable("torch")), reason=str(why_unusable("torch")))
@pytest.mark.parametrize("name", NAMES)
def test_right_and_wrong_is_what_autograd_says(name):
    """At kinks backward and autograd may take different one-sided slopes; float32 alone is not so exact."""
    mine = [case for case in CASES if case.kind_name == name and case.set not in ("at kinks", "float32 alone")]
    for case in mine:
        expected = autograd(case)
        if not case.wrong:
            assert distance(right_gradients(case), expected) < 1e-9, case.name
        elif zoo.effect(case) >= zoo.tells(case, "float64"):
            with overflowing():
                assert distance(gradients(*case.build()), expected) >= zoo.tells(case, "float64") / 2, case.name


def test_data_and_mistakes_follow_the_seed():
    first, again, other = (
        {case.name.partition("/seed")[0]: case.build()[1] for case in zoo.cases(seed, ("layers",))}
        for seed in (1, 1, 2)
    )
    assert first.keys() == again.keys() != other.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first.keys() & other.keys())


# ── The check ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_right_versions_pass_and_wrong_ones_do_not(name, dtype):
    right, wrong = of(name, FIRM, dtype)
    assert accused(right, "numpy", dtype) == {}
    assert missed(wrong, "numpy", dtype) == {}


# without the wide networks: a thousand entries and more, each looked at in two runs of PyTorch
ON_PYTORCH = [case for case in FIRM if case.set in ("layers", "networks") and "wide" not in case.kind_name]


@pytest.mark.skipif(bool(why_unusable("torch")), reason=str(why_unusable("torch")))
@pytest.mark.parametrize("name", dict.fromkeys(case.kind_name for case in ON_PYTORCH))
def test_on_pytorch_too(name):
    """In one dtype and with one mistake: the checker is the same."""
    dtype = DTYPES[NAMES.index(name) % 2]
    right, wrong = of(name, ON_PYTORCH, dtype)
    assert accused(right, "torch", dtype) == {}
    assert missed(wrong[:1], "torch", dtype) == {}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [kind.name for kind in zoo.KINDS if kind.scales])
def test_scaled_inputs_fail_no_right_entry_and_pass_nothing_wrong(name, dtype):
    """What is right may be too small to tell, but is never called wrong."""
    right, wrong = of(name, SCALED, dtype)
    failed = {case.name: check(case, "numpy", dtype) for case in right}
    assert {case: repr(found) for case, found in failed.items() if found.failed} == {}
    assert missed(wrong, "numpy", dtype) == {}


def kept(net):
    """Return what the layers of ``net`` hold: state and parameters whole, the shapes of everything else."""
    layers = list(net.layers.values()) if hasattr(net, "layers") else [net]
    found = {}
    for i, layer in enumerate(layers):
        for name, value in vars(layer).items():
            if isinstance(value, np.random.Generator):
                value = str(value.bit_generator.state)
            elif name not in (*getattr(layer, "state", ()), *getattr(layer, "parameters", ())):
                value = getattr(value, "shape", type(value))
            found[i, name] = np.array(value, copy=True)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_check_changes_nothing(name):
    """Running statistics, masks, counters and random generators to the bit, what backward needs in its shape."""
    for case in (case for case in FIRM if case.kind_name == name and case.set != "at kinks" and not case.wrong):
        net, x, t = case.build()
        with overflowing():
            gradients(net, x, t)
            before = kept(net)
            check_gradients(net, x, t, progress=False)
        after = kept(net)
        changed = [key for key in before if not np.array_equal(before[key], after[key])]
        assert (case.name, changed, after.keys() - before.keys()) == (case.name, [], set())


# ── The program ──────────────────────────────────────────────────────────────────────────────────────────────────────

PROGRAM = Path(__file__).with_name("measure_checkers.py")


def run(*options):
    return subprocess.run([sys.executable, PROGRAM, *map(str, options)], capture_output=True, text=True, check=False)


def test_program_prints_the_table_and_keeps_every_result(tmp_path):
    files = [tmp_path / "1.json", tmp_path / "2.json"]
    common = ("--only", "xpnet", "--sets", "layers", "--match", "/dense/", "--dtypes", "float64")
    for number, file in enumerate(files, start=1):
        done = run(*common, "--part", f"{number}/2", "--json", file)
        assert done.returncode == 0, done.stderr
        assert "| xpnet | float64 | layers |" in done.stdout
    rows = [row for file in files for row in json.loads(file.read_text())["results"]]
    whole = [case for case in zoo.cases(0, ("layers",)) if case.kind_name == "dense"]
    counted = [case for case in whole if not case.wrong or zoo.effect(case) >= zoo.tells(case, "float64")]
    assert sorted(row["case"] for row in rows) == sorted(case.name for case in counted)
    printed = run("--read", *files).stdout
    right = sum(not row["wrong"] for row in rows)
    assert f"| xpnet | float64 | layers | {right} | 0 | {len(rows) - right} |" in printed


@pytest.mark.parametrize("name", [name for name, contender in CONTENDERS.items() if not contender.absent()])
def test_every_contender_knows_a_dense_layer_from_one_that_forgets_to_sum_its_bias(name):
    """In float64, where it has that: some refuse whatever is in float32, but all refuse what is wrong."""
    dtype = CONTENDERS[name].dtypes[0]
    layers = {case.wrong: case for case in CASES if case.set == "layers" and case.kind_name == "dense"}
    assert dtype == "float32" or verdict(CONTENDERS[name], layers[""], dtype)[0]
    assert not verdict(CONTENDERS[name], layers["db not summed"], dtype)[0]


def test_program_names_what_it_does_not_know():
    done = run("--only", "xpnet,abacus")
    assert done.returncode == 2
    assert "'abacus' is not one of xpnet" in done.stderr
