"""Arrays on their way to the host: what is on the way arrives together, so that a device is waited for once."""

import threading
import weakref
from math import prod

from array_api_compat import device

from ..arrays import detached
from ..backend import to_numpy
from ..functions import namespace, on_host


class OnTheWay:
    """Arrays or numbers, {name: array}, whose numbers are wanted on the host, later if they lie elsewhere.

    ``copy=True`` takes them as they are now, where something is about to write into them.
    """

    def __init__(self, arrays, copy=False):
        self._host, self._far = {}, {}
        for name, array in arrays.items():
            if hasattr(array, "dtype") and not on_host(array):
                array = detached(array)
                self._host[name] = None  # in the order given
                self._far[name] = namespace(array).asarray(array, copy=True) if copy else array
            else:
                self._host[name] = to_numpy(array).copy() if copy else to_numpy(array)
        if self._far:
            _waiting().add(self)

    @property
    def host(self):
        """{name: NumPy array}; waits if they are not there yet, and lets all others arrive too."""
        if self._far:
            _arrive([self, *(one for one in _waiting() if one is not self)])
        return self._host


class _OfThread(threading.local):
    def __init__(self):
        self.waiting = weakref.WeakSet()


_here = _OfThread()  # a thread may have a stream of its own


def _waiting():
    return _here.waiting


def _arrive(all_of_them):
    """Bring arrays to the host, in one copy for each device and kind of number."""
    _waiting().clear()
    lots = {}
    for one in all_of_them:
        for name, array in one._far.items():
            lots.setdefault((type(array), str(device(array)), _kind(array)), []).append((one, name, array))
    for lot in lots.values():
        for (one, name, _), numbers in zip(lot, _brought([array for *_, array in lot]), strict=True):
            one._host[name] = numbers
    for one in all_of_them:
        one._far = {}


def _kind(array):
    """Return what may travel together: what floats of the widest kind hold exactly, or only a dtype alone."""
    xp, dtype = namespace(array), array.dtype
    wide = xp.isdtype(dtype, "bool") or (xp.isdtype(dtype, "real floating") and xp.finfo(dtype).bits >= 32)
    return "floats" if wide else str(dtype)


def _brought(arrays):
    """Yield arrays of one kind on the host, each in its own dtype."""
    xp = namespace(*arrays)
    floats = [array.dtype for array in arrays if xp.isdtype(array.dtype, "real floating")]
    dtype = xp.result_type(*floats) if floats else arrays[0].dtype
    rows = [xp.reshape(xp.astype(array, dtype, copy=False), (-1,)) for array in arrays]
    row, start = to_numpy(rows[0] if len(rows) == 1 else xp.concat(rows)), 0
    for array in arrays:
        stop = start + prod(array.shape)
        numbers = row[start:stop].reshape(array.shape)
        yield numbers if array.dtype == dtype else numbers.astype(str(array.dtype).rpartition(".")[2])
        start = stop
