"""MNIST as shipped is MNIST; other folders load alike; every damaged file is named, with what is wrong with it."""

import gzip
import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from xpnet import BackendError, get_backend, load_mnist
from xpnet.datasets.mnist import FOLDER, IMAGES, LABELS, read_idx

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FILES = tuple(SHA256)
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES


def idx(values):
    """Return unsigned bytes in the IDX format: a magic number, the shape in big-endian numbers, the data."""
    values = np.asarray(values, dtype=np.uint8)
    return struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes()


def content():
    rng = np.random.default_rng(7)
    return {
        TRAIN_IMAGES: rng.integers(256, size=(6, 3, 4)),
        TRAIN_LABELS: [0, 1, 2, 3, 2, 1],
        TEST_IMAGES: rng.integers(256, size=(2, 3, 4)),
        TEST_LABELS: [3, 0],
    }


@pytest.fixture
def folder(tmp_path):
    """Return a folder of four small uncompressed files."""
    for name, values in content().items():
        (tmp_path / name).write_bytes(idx(values))
    return tmp_path


class TestShippedFiles:
    @pytest.mark.parametrize("name", FILES)
    def test_uncompressed_file_is_the_published_one(self, name):
        with gzip.open(Path(FOLDER) / f"{name}.gz") as file:
            assert hashlib.sha256(file.read()).hexdigest() == SHA256[name]

    def test_licence_is_named_beside_them(self):
        text = (Path(FOLDER) / "ATTRIBUTION.md").read_text(encoding="utf-8")
        for word in ("LeCun", "Cortes", "Burges", "Attribution-ShareAlike 3.0"):
            assert word in text

    def test_default_is_flat_and_scaled_floats(self):
        (x_train, t_train), (x_test, t_test) = load_mnist(backend="numpy")
        assert (x_train.shape, x_test.shape) == ((60000, 784), (10000, 784))
        assert (t_train.shape, t_test.shape) == ((60000,), (10000,))
        assert x_train.dtype == x_test.dtype == np.float32
        assert t_train.dtype == t_test.dtype == np.int64
        assert x_train.min() == x_test.min() == 0.0
        assert x_train.max() == x_test.max() == 1.0
        assert np.bincount(t_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

    def test_bytes_are_kept_without_normalize_and_images_without_flatten(self):
        (x_train, _), (x_test, _) = load_mnist(normalize=False, flatten=False, backend="numpy")
        assert (x_train.shape, x_test.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
        assert x_train.dtype == np.uint8
        assert hashlib.sha256(x_train.tobytes()).digest() == hashlib.sha256(self.bytes_of(TRAIN_IMAGES)).digest()

    def bytes_of(self, name):
        with gzip.open(Path(FOLDER) / f"{name}.gz") as file:
            return file.read()[16:]

    def test_one_hot_labels_are_ten_floats_with_a_one_at_the_label(self):
        (_, t_train), (_, t_test) = load_mnist(normalize=False, backend="numpy")
        (_, hot_train), (_, hot_test) = load_mnist(normalize=False, one_hot_label=True, backend="numpy")
        assert hot_train.dtype == np.float32
        assert np.array_equal(hot_train, np.eye(10)[t_train])
        assert np.array_equal(hot_test, np.eye(10)[t_test])


class TestOtherFolders:
    def test_values(self, folder):
        (x_train, t_train), (x_test, t_test) = load_mnist(folder=folder, backend="numpy")
        made = content()
        assert np.array_equal(x_train, np.reshape(made[TRAIN_IMAGES], (6, 12)).astype(np.float32) / np.float32(255))
        assert np.array_equal(x_test, np.reshape(made[TEST_IMAGES], (2, 12)).astype(np.float32) / np.float32(255))
        assert t_train.tolist() == made[TRAIN_LABELS]
        assert t_test.tolist() == made[TEST_LABELS]

    def test_every_backend_gets_the_same_arrays_of_its_own(self, folder, case):
        expected = load_mnist(folder=folder, one_hot_label=True, flatten=False, backend="numpy")
        found = load_mnist(folder=folder, one_hot_label=True, flatten=False, backend=case.backend)
        for (x, t), (x_expected, t_expected) in zip(found, expected, strict=True):
            assert type(x) is type(t) is type(case.asarray(0.0))
            assert x.device == case.device
            assert case.host(x).dtype == case.host(t).dtype == np.float32
            # a library may multiply by 1/255 instead of dividing
            np.testing.assert_allclose(case.host(x), x_expected, rtol=np.finfo(np.float32).eps)
            assert np.array_equal(case.host(t), t_expected)

    @pytest.mark.parametrize("normalize", [True, False])
    def test_arrays_may_be_written(self, folder, normalize):
        (x_train, _), _ = load_mnist(normalize, folder=folder, backend="numpy")
        x_train[0, 0] = 1
        assert x_train[0, 0] == 1

    def test_string_path_is_a_folder_too(self, folder):
        assert load_mnist(folder=str(folder), backend="numpy")[0][0].shape == (6, 12)

    def test_compressed_and_uncompressed_files_mix(self, folder):
        packed = gzip.compress((folder / TRAIN_IMAGES).read_bytes())
        expected = load_mnist(folder=folder, backend="numpy")
        (folder / TRAIN_IMAGES).unlink()
        (folder / f"{TRAIN_IMAGES}.gz").write_bytes(packed)
        assert np.array_equal(load_mnist(folder=folder, backend="numpy")[0][0], expected[0][0])

    def test_compression_is_told_by_content_not_by_name(self, folder):
        packed = gzip.compress((folder / TRAIN_LABELS).read_bytes())
        (folder / TRAIN_LABELS).write_bytes(packed)
        assert load_mnist(folder=folder, backend="numpy")[0][1].tolist() == content()[TRAIN_LABELS]

    def test_emnist_names(self, folder):
        for name in FILES:
            (folder / name).rename(folder / f"emnist-letters-{name.replace('t10k', 'test')}")
        (x_train, _), (x_test, _) = load_mnist(folder=folder, backend="numpy")
        assert (x_train.shape, x_test.shape) == ((6, 12), (2, 12))

    def test_number_of_classes_is_largest_training_label_plus_one(self, folder):
        (_, t_train), (_, t_test) = load_mnist(one_hot_label=True, folder=folder, backend="numpy")
        assert (t_train.shape, t_test.shape) == ((6, 4), (2, 4))


class TestFoldersAsPeopleHaveThem:
    """What programs, browsers and other libraries leave: every layout holds the same four files."""

    def assert_loads(self, folder):
        (x_train, t_train), (_, t_test) = load_mnist(normalize=False, folder=folder, backend="numpy")
        made = content()
        assert np.array_equal(x_train, np.reshape(made[TRAIN_IMAGES], (6, 12)))
        assert (t_train.tolist(), t_test.tolist()) == (made[TRAIN_LABELS], made[TEST_LABELS])

    @pytest.mark.parametrize(
        "rename",
        [
            lambda name: name.replace("-idx", ".idx"),
            lambda name: name.replace("-", "."),
            str.upper,
            lambda name: name.replace("-idx", ".idx").upper(),
            lambda name: f"KMNIST-{name}",
        ],
        ids=["dot", "dots", "upper case", "upper case, dot", "KMNIST"],
    )
    @pytest.mark.parametrize("end", ["", ".gz", ".GZ"])
    def test_names(self, folder, rename, end):
        for name in FILES:
            data = (folder / name).read_bytes()
            (folder / name).unlink()
            (folder / f"{rename(name)}{end}").write_bytes(gzip.compress(data) if end else data)
        self.assert_loads(folder)

    def test_packed_and_unpacked_side_by_side(self, folder):
        for name in FILES:
            (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        self.assert_loads(folder)

    def test_the_unpacked_file_counts(self, folder):
        (folder / f"{TRAIN_LABELS}.gz").write_bytes(b"half of a download")
        self.assert_loads(folder)

    def test_dashes_and_dots_side_by_side(self, folder):
        for name in FILES:
            (folder / name.replace("-idx", ".idx")).write_bytes((folder / name).read_bytes())
        self.assert_loads(folder)

    def test_torchvision_keeps_them_in_raw(self, folder):
        (folder / "raw").mkdir()
        for name in FILES:
            (folder / "raw" / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
            (folder / name).rename(folder / "raw" / name)
        self.assert_loads(folder)
        self.assert_loads(folder / "raw")

    @pytest.mark.parametrize("beside", [False, True])
    def test_folders_named_like_the_files_in_them(self, folder, beside):
        for name in FILES:
            data = (folder / name).read_bytes()
            (folder / name).unlink()
            (folder / name).mkdir()
            (folder / name / name).write_bytes(data)
            if beside:
                (folder / name.replace("-idx", ".idx")).write_bytes(data)
        self.assert_loads(folder)

    def test_a_folder_in_place_of_a_file_is_no_file(self, folder):
        (folder / TEST_LABELS).unlink()
        (folder / TEST_LABELS).mkdir()
        with pytest.raises(FileNotFoundError, match=r"has no file \*t10k-labels-idx\*-ubyte or .*four IDX files"):
            load_mnist(folder=folder, backend="numpy")


class TestErrors:
    @pytest.mark.parametrize("name", FILES)
    def test_missing_file(self, folder, name):
        (folder / name).unlink()
        part = name.partition("-idx")[0]
        with pytest.raises(FileNotFoundError, match=rf"has no file \*{part}-idx\*-ubyte or .*four IDX files") as caught:
            load_mnist(folder=folder, backend="numpy")
        assert str(folder) in str(caught.value)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="four IDX files"):
            load_mnist(folder=tmp_path / "nowhere", backend="numpy")

    def test_two_candidates(self, folder):
        for name in ("letters", "digits"):
            (folder / f"emnist-{name}-{TEST_IMAGES}").write_bytes((folder / TEST_IMAGES).read_bytes())
        (folder / TEST_IMAGES).unlink()
        says = rf"2 files for the test images, one is needed: emnist-digits-{TEST_IMAGES}, emnist-letters-{TEST_IMAGES}"
        with pytest.raises(ValueError, match=says):
            load_mnist(folder=folder, backend="numpy")

    def test_unequal_counts(self, folder):
        (folder / TRAIN_LABELS).write_bytes(idx([0, 1, 2, 3, 1]))
        with pytest.raises(ValueError, match=f"{TRAIN_IMAGES} has 6 images, but there are 5 labels"):
            load_mnist(folder=folder, backend="numpy")

    def test_test_label_that_training_never_shows(self, folder):
        (folder / TEST_LABELS).write_bytes(idx([0, 9]))
        with pytest.raises(ValueError, match="test labels go up to 9, but training labels only to 3"):
            load_mnist(folder=folder, backend="numpy")

    def test_unknown_backend_comes_before_any_file(self, tmp_path):
        with pytest.raises(BackendError):
            load_mnist(folder=tmp_path, backend="nmupy")


class TestReadIdx:
    """Each damage, in a compressed and an uncompressed file, is a ValueError that names the file."""

    VALUES = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)

    @pytest.fixture(params=["plain", "gzip"])
    def write(self, request, tmp_path):
        path = tmp_path / "images"

        def write(data):
            path.write_bytes(gzip.compress(data) if request.param == "gzip" else data)
            return path

        return write

    def refused(self, path, match, magic=IMAGES):
        with pytest.raises(ValueError, match=match) as caught:
            read_idx(path, magic)
        assert str(path) in str(caught.value)

    def test_whole_file(self, write):
        assert np.array_equal(read_idx(write(idx(self.VALUES)), IMAGES), self.VALUES)

    def test_empty_file(self, write):
        self.refused(write(b""), "ends within its header")

    def test_file_of_zero_bytes(self, tmp_path):
        (tmp_path / "images").write_bytes(b"")
        self.refused(tmp_path / "images", "ends within its header")

    @pytest.mark.parametrize("length", [1, 4, 15])
    def test_cut_header(self, write, length):
        self.refused(write(idx(self.VALUES)[:length]), "ends within its header")

    def test_labels_where_images_belong(self, write):
        self.refused(write(idx(np.zeros(50))), "begins with the number 0x801; a file of this kind begins with 0x803")

    def test_images_where_labels_belong(self, write):
        self.refused(write(idx(self.VALUES)), "0x803; a file of this kind begins with 0x801", magic=LABELS)

    @pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4)])
    def test_no_entries(self, write, shape):
        self.refused(write(idx(np.zeros(shape))), "entries, which is none")

    def test_header_announces_more_than_there_is(self, write):
        data = idx(self.VALUES)
        self.refused(write(struct.pack(">I3I", IMAGES, 6, 3, 4) + data[16:]), "announces 72 bytes of data")

    def test_header_announces_less_than_there_is(self, write):
        data = idx(self.VALUES)
        self.refused(write(struct.pack(">I3I", IMAGES, 4, 3, 4) + data[16:]), "announces 48 bytes of data.*holds more")

    def test_header_announces_more_than_the_file_can_hold(self, write):
        header = struct.pack(">I3I", IMAGES, 2**31, 2**31, 2**31)
        self.refused(write(header), f"announces {2**93} bytes of data, more than a file of .* can hold")

    def test_data_behind_the_end(self, write):
        self.refused(write(idx(self.VALUES) + b"x"), "holds more")

    @pytest.mark.parametrize("cut", [1, 4, 8, 9, 20])
    def test_cut_gzip_file(self, tmp_path, cut):
        (tmp_path / "images").write_bytes(gzip.compress(idx(self.VALUES))[:-cut])
        self.refused(tmp_path / "images", "damaged or cut short")

    def test_damaged_check_sum(self, tmp_path):
        data = bytearray(gzip.compress(idx(self.VALUES)))
        data[-8] ^= 1
        (tmp_path / "images").write_bytes(data)
        self.refused(tmp_path / "images", "damaged.*CRC")

    def test_every_flipped_byte_of_the_compressed_data_is_found(self, tmp_path):
        """Ten bytes of gzip's own header carry no data and no check sum."""
        whole = gzip.compress(idx(self.VALUES), mtime=0)
        for place in range(10, len(whole)):
            data = bytearray(whole)
            data[place] ^= 0xFF
            (tmp_path / "images").write_bytes(data)
            with pytest.raises(ValueError, match="images"):
                read_idx(tmp_path / "images", IMAGES)

    def test_garbage_behind_a_gzip_file(self, tmp_path):
        (tmp_path / "images").write_bytes(gzip.compress(idx(self.VALUES)) + b"garbage")
        self.refused(tmp_path / "images", "damaged")

    def test_file_that_unpacks_to_far_more_than_it_announces_is_not_unpacked(self, tmp_path):
        (tmp_path / "images").write_bytes(gzip.compress(idx(self.VALUES) + bytes(100_000_000), compresslevel=1))
        with traced_memory() as memory:
            self.refused(tmp_path / "images", "announces 60 bytes of data, but holds more")
        assert memory.peak < 5_000_000


class traced_memory:  # noqa: N801 - a context manager, used like a function
    """Measure the largest amount of memory, in bytes, that Python and NumPy hold at once inside the block."""

    def __enter__(self):
        tracemalloc.start()
        return self

    def __exit__(self, *_):
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


def test_peak_memory_is_little_more_than_the_result():
    """Floats of 70,000 images take 220 MB; no second copy of them may exist at any moment."""
    get_backend("numpy")
    with traced_memory() as memory:
        parts = load_mnist(backend="numpy")
    assert memory.peak < 1.25 * sum(array.nbytes for part in parts for array in part)
