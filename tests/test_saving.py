"""A saved file is whole at every moment, is read by every backend, and lets a training go on bit for bit."""

import errno
import io
import json
import os
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from killed_training import survive

from xpnet import (
    Affine,
    Network,
    Relu,
    TrainingState,
    TwoLayerNet,
    load_parameters,
    load_training,
    save_parameters,
    save_training,
    train,
)

SETTINGS = {"hidden": 8, "learning_rate": 0.1, "replacement": False, "data": None, "name": "späße\n"}


def data(seed=9, size=43):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, 12)), rng.integers(5, size=size)


def network_for(case=None, seed=4, hidden=8):
    kind = {"dtype": case.dtype, "backend": case.backend} if case else {"backend": "numpy"}
    return TwoLayerNet(12, hidden, 5, 0.3, rng=seed, **kind)


def trained(iterations, network=None, **how):
    network = network or network_for()
    records = list(train(network, *data(), iterations=iterations, batch_size=10, rng=8, **how))
    return network, records


def merged(records, more):
    """Return the history of a run that went on; a record of an epoch that was cut short comes again."""
    return [*(record for record in records if not more or record.epoch < more[0].epoch), *more]


def assert_same_bits(one, other):
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert one[name].tobytes() == other[name].tobytes(), name


def assert_same_records(records, expected):
    assert len(records) == len(expected)
    for one, other in zip(records, expected, strict=True):
        assert one._replace(losses=None) == other._replace(losses=None)
        assert one.losses.dtype == other.losses.dtype
        assert one.losses.tobytes() == other.losses.tobytes()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "network.npz"


# ── What is in the file ─────────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_return_bit_for_bit(case, file):
    network, other = network_for(case, seed=1), network_for(case, seed=2)
    save_parameters(network, file)
    load_parameters(other, file)
    assert_same_bits(case.host(dict(other.params)), case.host(dict(network.params)))
    for value in other.params.values():
        case.assert_ours(value)


def test_a_file_of_one_backend_is_read_by_every_other(case, file):
    on_numpy = TwoLayerNet(12, 8, 5, rng=3, dtype=case.dtype, backend="numpy")
    there = network_for(case)
    save_parameters(on_numpy, file)
    load_parameters(there, file)
    save_parameters(there, file)
    assert_same_bits(load_training(file).parameters, dict(on_numpy.params))


def test_a_training_returns_whole(file):
    network, records = trained(12)
    save_training(network, records, file, settings=SETTINGS)
    state = load_training(file)
    assert isinstance(state, TrainingState)
    assert_same_bits(state.parameters, dict(network.params))
    assert_same_records(state.records, records)
    assert [record.seed for record in state.records] == [8, 8, 8]
    assert state.settings == SETTINGS
    assert state.version == __import__("xpnet").__version__


def test_values_that_are_rare_return_too(file):
    network = network_for()
    network.params["b2"] = np.asarray([np.nan, np.inf, -0.0, 5e-324, 1.7976931348623157e308])
    save_parameters(network, file)
    assert_same_bits(load_training(file).parameters, dict(network.params))


def test_networks_restored_from_one_state_do_not_share_arrays(case, file):
    save_parameters(network_for(case), file)
    state = load_training(file)
    one, other = network_for(case), network_for(case)
    state.restore(one)
    state.restore(other)
    before = case.host(other.params["W1"]).copy()
    one.params["W1"] -= 1.0
    np.testing.assert_array_equal(case.host(other.params["W1"]), before)
    np.testing.assert_array_equal(state.parameters["W1"], before)


def test_nothing_in_it_needs_unpickling(file):
    network, records = trained(12)
    save_training(network, records, file, settings=SETTINGS)
    with np.load(file, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fU" for name in arrays.files)


@pytest.mark.parametrize("settings", [{"x": np.float32(1)}, {"x": object()}, {1: [{2, 3}]}, {"x": np.ones(2)}])
def test_settings_that_are_not_plain_are_refused_and_nothing_is_written(file, settings):
    with pytest.raises(TypeError, match="settings must be strings, numbers, truth values and None, but: Object of ty"):
        save_training(network_for(), [], file, settings=settings)
    assert not list(file.parent.iterdir())


def test_a_network_of_any_layers(file):
    def make(seed):
        rng = np.random.default_rng(seed)
        layers = [Affine(rng.normal(size=(3, 4))), Relu(), Affine(rng.normal(size=(4, 2)), rng.normal(size=2))]
        return Network(layers)

    network, other = make(1), make(2)
    save_parameters(network, str(file))
    load_parameters(other, str(file))
    assert_same_bits(dict(other.params), dict(network.params))


# ── Going on ────────────────────────────────────────────────────────────────────────────────────────────────────────


GENERATORS = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("kind", GENERATORS, ids=lambda kind: kind.__name__)
def test_a_run_cut_anywhere_goes_on_bit_for_bit(file, kind, replacement):
    """Cut after each number of iterations, also within an epoch: parameters, losses and accuracies are the same."""

    def how():
        return {"rng": np.random.Generator(kind(3)), "replacement": replacement, "batch_size": 10}

    x, t = data()
    whole = network_for()
    expected = list(train(whole, x, t, x[:9], t[:9], iterations=13, **how()))
    for cut in range(1, 14):
        network = network_for()
        records = list(train(network, x, t, x[:9], t[:9], iterations=cut, **how()))
        save_training(network, records, file)
        state = load_training(file)
        fresh = network_for(seed=99)
        state.restore(fresh)
        more = list(train(fresh, x, t, x[:9], t[:9], iterations=13, **how(), resume=state.records[-1]))
        assert_same_records(merged(state.records, more), expected)
        assert_same_bits(dict(fresh.params), dict(whole.params))


def test_every_backend_goes_on(case, file):
    """A library may round a sum otherwise the second time; NumPy does not, and the others did not either."""
    x, t = map(case.asarray, data(size=40))
    how = {"iterations": 7, "batch_size": 10}
    whole, network = network_for(case), network_for(case)
    expected = list(train(whole, x, t, **how))
    records = [next(train(network, x, t, **how))]
    save_training(network, records, file)
    state = load_training(file)
    fresh = network_for(case, seed=99)
    state.restore(fresh)
    more = list(train(fresh, x, t, **how, resume=state.records[-1]))
    assert_same_records(merged(records, more), expected)
    assert_same_bits(case.host(dict(fresh.params)), case.host(dict(whole.params)))


def test_a_run_goes_on_from_the_seed_in_its_record():
    """Also where the generator that it was drawn from is gone; of an epoch, nothing else is needed."""
    whole, expected = network_for(), []
    for record in train(whole, *data(), iterations=13, batch_size=10, rng=np.random.default_rng(3)):
        expected.append(record)
    network, first = network_for(), []
    for record in train(network, *data(), iterations=7, batch_size=10, rng=np.random.default_rng(3)):
        first.append(record)
    more = list(train(network, *data(), iterations=13, batch_size=10, resume=first[-1]))
    assert_same_records(merged(first, more), expected)
    assert_same_bits(dict(network.params), dict(whole.params))


def test_parameters_return_to_a_network_of_another_make(file):
    """As in the book: the layer and the dict hold one array, which must be written and not replaced."""
    ours = network_for(seed=1)

    class Books:
        params = dict(ours.params)  # noqa: RUF012 - one network, one dict

    save_parameters(network_for(seed=2), file)
    load_parameters(Books(), file)
    assert_same_bits(dict(ours.params), dict(network_for(seed=2).params))


def test_a_run_that_is_complete_yields_nothing_more():
    network, records = trained(10)
    before = {name: value.copy() for name, value in network.params.items()}
    for iterations in (10, 7, 1):
        assert list(train(network, *data(), iterations=iterations, batch_size=10, resume=records[-1])) == []
    assert_same_bits(dict(network.params), before)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 8}, "resume is at epoch 3, iteration 12, which 43 samples in batches of 8 never reach"),
        (
            {"resume": {"seed": None}},
            "resume carries no seed: it was saved by an xpnet that drew batches in another way",
        ),
        ({"resume": {"epoch": 2}}, "resume is at epoch 2, iteration 12"),
        ({"resume": {"losses": np.ones(0)}}, "resume is at epoch 3, iteration 12"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(change, says):
    network, records = trained(12)
    change["resume"] = records[-1]._replace(**change.get("resume", {}))
    with pytest.raises(ValueError, match=says):
        next(train(network, *data(), **{"iterations": 20, "batch_size": 10, **change}))


@pytest.mark.skipif(os.name != "posix", reason="a killed process behaves otherwise on this system")
def test_a_training_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path):
    finished, _ = survive(tmp_path, kills=10, longest=0.08)
    assert finished


# ── Writing fails ───────────────────────────────────────────────────────────────────────────────────────────────────


def saved_before(file):
    """Write a first file; return its bytes."""
    save_parameters(network_for(seed=1), file)
    return file.read_bytes()


def assert_untouched(file, before):
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file], "nothing temporary stays"


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_whatever_step_fails_the_old_file_is_untouched(file, monkeypatch, step):
    before = saved_before(file)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "open":
        monkeypatch.setattr("builtins.open", full)
    else:
        monkeypatch.setattr(*{"write": (np, "savez"), "fsync": (os, "fsync"), "replace": (os, "replace")}[step], full)
    with pytest.raises(OSError, match=r"network\.npz could not be written.*unchanged: No space left") as caught:
        save_parameters(network_for(seed=2), file)
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert_untouched(file, before)


@pytest.mark.parametrize("limit", [0, 100, 5000, 20000])
def test_a_disk_that_becomes_full_while_writing(file, limit):
    """The system refuses to let any file grow beyond ``limit`` bytes; the network needs some 300,000."""
    resource = pytest.importorskip("resource", reason="this system has no limit on file sizes")
    before = saved_before(file)
    code = f"""
import resource, signal, sys
from xpnet import TwoLayerNet, save_parameters
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    save_parameters(TwoLayerNet(784, 50, 10), {str(file)!r})
except OSError as error:
    sys.exit(str(error))
"""
    assert resource
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert ran.returncode == 1
    assert "network.npz could not be written, and what was there is unchanged: File too large" in ran.stderr
    assert_untouched(file, before)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interruption_while_writing(file, monkeypatch, interruption):
    before = saved_before(file)

    def interrupted(descriptor):
        raise interruption

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(interruption):
        save_parameters(network_for(seed=2), file)
    assert_untouched(file, before)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; make it first"):
        save_parameters(network_for(), tmp_path / "nowhere" / "network.npz")


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "network.npz").mkdir()
    with pytest.raises(OSError, match=r"network\.npz could not be written"):
        save_parameters(network_for(), tmp_path / "network.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["network.npz"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_or_device_is_not_replaced(file):
    os.mkfifo(file)
    with pytest.raises(OSError, match=r"network\.npz is a device or a pipe, which a file would replace; name a file"):
        save_parameters(network_for(), file)
    assert file.is_fifo()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="only an ordinary user can be kept from writing")
def test_a_folder_that_may_not_be_written(file):
    before = saved_before(file)
    file.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"network\.npz could not be written"):
            save_parameters(network_for(), file)
    finally:
        file.parent.chmod(0o700)
    assert_untouched(file, before)


def test_a_system_that_cannot_open_folders(file, monkeypatch):
    """As Windows: the rename is then all there is."""

    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(os, "open", refused)
    save_parameters(network_for(seed=1), file)
    load_parameters(network_for(), file)


@pytest.mark.skipif(os.name != "posix", reason="file modes and links are others on this system")
def test_links_and_modes_are_those_of_any_file(tmp_path):
    target, link = tmp_path / "target.npz", tmp_path / "link.npz"
    mask = os.umask(0o022)
    try:
        save_parameters(network_for(seed=1), target)
        link.symlink_to(target)
        save_parameters(network_for(seed=2), link)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert link.is_symlink()
    assert_same_bits(load_training(target).parameters, dict(network_for(seed=2).params))


# ── Reading fails ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (lambda: TwoLayerNet(12, 9, 5), r"W1 of the network has shape \(12, 9\) and dtype float64, but .* \(12, 8\)"),
        (lambda: TwoLayerNet(12, 8, 4), r"W2 of the network has shape \(8, 4\).* with shape \(8, 5\)"),
        (lambda: TwoLayerNet(12, 8, 5, dtype="float32"), "dtype float32, but was saved with .* dtype float64"),
        (lambda: Network([Affine(np.ones((12, 8)))]), "has the parameters W1, but W1, b1, W2, b2 were saved"),
    ],
)
def test_the_file_of_another_network_changes_nothing(file, other, says):
    save_parameters(network_for(), file)
    network = other()
    before = {name: value.copy() for name, value in network.params.items()}
    with pytest.raises(ValueError, match=says):
        load_parameters(network, file)
    assert_same_bits(dict(network.params), before)


def rewritten(file, **members):
    """Write the file again with some members replaced."""
    with np.load(file) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    np.savez(file, **{**content, **members})


def test_a_newer_format_says_which_version_wrote_it(file):
    save_parameters(network_for(), file)
    rewritten(file, xpnet=np.asarray('{"format": 4, "version": "9.1.0", "news": true}'))
    with pytest.raises(ValueError, match=r"written by xpnet 9\.1\.0 in format 4; this xpnet reads format 3: install"):
        load_training(file)


def test_a_training_of_an_older_format_is_read_but_not_gone_on_with(file):
    """Its batches were drawn from the state of a generator, which the record of an epoch held."""
    network, records = trained(12)
    save_training(network, records, file, settings=SETTINGS)
    with np.load(file) as arrays:
        header = json.loads(arrays["xpnet"].item())
    for record in header["records"]:
        del record["seed"]
        record["rng_state"] = np.random.PCG64(8).state
    rewritten(file, xpnet=np.asarray(json.dumps({**header, "format": 2})))
    state, fresh = load_training(file), network_for(seed=99)
    state.restore(fresh)
    assert_same_bits(dict(fresh.params), dict(network.params))
    assert_same_records(state.records, [record._replace(seed=None) for record in records])
    with pytest.raises(ValueError, match=r"carries no seed: .* finish the run with that xpnet .* or begin a new one"):
        train(fresh, *data(), iterations=20, batch_size=10, resume=state.records[-1])
    assert list(train(fresh, *data(), iterations=5, batch_size=10)), "from its parameters, a new run begins"


def test_parameters_alone_are_written_as_ever(file):
    """So that they can be read by an xpnet that knows nothing of seeds in records."""
    save_parameters(network_for(), file)
    with np.load(file) as arrays:
        assert json.loads(arrays["xpnet"].item())["format"] == 1


def of_npz(**arrays):
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def of_zip(kind=zipfile.ZIP_STORED, **members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return out.getvalue()


HUGE = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }" % 10**15
HUGE = HUGE.ljust(127) + b"\n"
HEADER = '{"format": 1, "version": "0", "parameters": [%s], "settings": {}, "records": [%s]}'
RECORD = '{"epoch": 1, "iteration": 3, "loss": 1, "train_accuracy": 1, "test_accuracy": 1, "losses": %d}'
FOREIGN = {
    "empty": b"",
    "text": b"hello",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "one array": b"\x93NUMPY\x01\x00",
    "an empty zip": of_zip(),
    "a foreign npz": of_npz(a=np.ones(3)),
    "a pickle": of_npz(xpnet=np.asarray({"a": 1}, dtype=object)),
    "numbers for a header": of_npz(xpnet=np.ones(3)),
    "a header that is no JSON": of_npz(xpnet=np.asarray("{")),
    "a header that is a list": of_npz(xpnet=np.asarray("[1]")),
    "a header without content": of_npz(xpnet=np.asarray('{"format": 1}')),
    "a missing parameter": of_npz(xpnet=np.asarray(HEADER % ('"W1"', ""))),
    "a pickled parameter": of_npz(
        xpnet=np.asarray(HEADER % ('"W1"', "")), **{"parameter W1": np.asarray([{}], dtype=object)}
    ),
    "a record of nothing": of_npz(xpnet=np.asarray(HEADER % ("", "{}")), losses=np.ones(1)),
    "fewer iterations than losses": of_npz(xpnet=np.asarray(HEADER % ("", RECORD % 2)), losses=np.ones(3)),
    "more iterations than losses": of_npz(xpnet=np.asarray(HEADER % ("", RECORD % 4)), losses=np.ones(3)),
    "a compressed file": of_zip(
        zipfile.ZIP_DEFLATED,
        xpnet=zipfile.ZipFile(io.BytesIO(of_npz(xpnet=np.asarray(HEADER % ("", ""))))).read("xpnet.npy"),
    ),
    "a header larger than memory": of_zip(xpnet=HUGE),
    "parameters larger than memory": of_zip(
        xpnet=zipfile.ZipFile(io.BytesIO(of_npz(xpnet=np.asarray(HEADER % ('"W1"', ""))))).read("xpnet.npy"),
        **{"parameter W1": HUGE},
    ),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_named(file, content):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"network\.npz was not saved by xpnet, or is damaged or cut short \(\w+: "):
        load_training(file)


def test_as_many_iterations_as_losses_are_right(file):
    """What the two lies above differ from by one number."""
    file.write_bytes(of_npz(xpnet=np.asarray(HEADER % ("", RECORD % 3)), losses=np.ones(3)))
    assert load_training(file).records[0].losses.shape == (3,)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_training(tmp_path / "nothing")
    with pytest.raises((IsADirectoryError, PermissionError)):
        load_training(tmp_path)


def small_file(file):
    network = TwoLayerNet(2, 2, 2, backend="numpy")
    rng = np.random.default_rng(0)
    records = list(train(network, rng.normal(size=(4, 2)), np.asarray([0, 1, 1, 0]), iterations=3, batch_size=2))
    save_training(network, records, file, settings=SETTINGS)
    return file.read_bytes(), load_training(file)


def damaged(content, count, seed):
    """Yield (what was done, content) for ``count`` files that were cut short or hit at random places."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        if number % 4 == 0:
            length = int(rng.integers(len(content)))
            yield f"cut to {length}", content[:length]
            continue
        hit = bytearray(content)
        places = rng.integers(len(content), size=rng.integers(1, 4))
        for place in places:
            hit[place] ^= int(rng.integers(1, 256))
        yield f"changed {places}", bytes(hit)


def survived(file, count, seed):
    """Damage a file ``count`` times; return how often it was refused. Otherwise all of its content must be there."""
    content, whole = small_file(file)
    refused = 0
    for what, hit in damaged(content, count, seed):
        file.write_bytes(hit)
        try:
            state = load_training(file)
        except ValueError as caught:
            refused += str(file) in str(caught)
            continue
        assert (state.settings, state.version) == (whole.settings, whole.version), what
        assert_same_bits(state.parameters, whole.parameters)
        assert_same_records(state.records, whole.records)
    return refused


def test_a_damaged_file_is_refused_or_nothing_of_it_was_hit(file):
    """Check sums guard the content; bytes that say nothing, such as times and file modes, may change unnoticed."""
    assert survived(file, 600, seed=0) > 420
