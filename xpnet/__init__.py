"""xpnet: how a neural network learns, small, exact and fast, on NumPy, CuPy and every Array API library."""

import sys
import typing

from .backend import Backend, BackendError, get_backend, to_numpy, why_unusable
from .book_networks import MultiLayerNet, SimpleNet, TwoLayerNet
from .compiling import CompileError
from .datasets import load_mnist
from .derivatives import numerical_diff, tangent_line
from .functions import identity_function, log_softmax, one_hot, relu, sigmoid, softmax, step_function
from .gradients import gradient_descent, numerical_gradient
from .layers import AddLayer, Affine, MulLayer, Relu, Sigmoid, Softmax
from .losses import cross_entropy_error, mean_squared_error, sum_squared_error
from .networks import Network
from .output_layers import IdentityWithLoss, SoftmaxWithLoss, TimeSoftmaxWithLoss
from .records import EpochRecord, TrainingError
from .saving import TrainingState, load_parameters, load_training, save_parameters, save_training
from .training import train
from .training_layers import BatchNormalization, Dropout

if typing.TYPE_CHECKING:
    from .gradcheck import GradientCheck, check_gradients

__all__ = [
    "AddLayer",
    "Affine",
    "Backend",
    "BackendError",
    "BatchNormalization",
    "check_gradients",
    "CompileError",
    "cross_entropy_error",
    "Dropout",
    "EpochRecord",
    "get_backend",
    "GradientCheck",
    "gradient_descent",
    "identity_function",
    "IdentityWithLoss",
    "load_mnist",
    "load_parameters",
    "load_training",
    "log_softmax",
    "mean_squared_error",
    "MulLayer",
    "MultiLayerNet",
    "Network",
    "numerical_diff",
    "numerical_gradient",
    "one_hot",
    "Relu",
    "relu",
    "save_parameters",
    "save_training",
    "sigmoid",
    "Sigmoid",
    "SimpleNet",
    "softmax",
    "Softmax",
    "SoftmaxWithLoss",
    "step_function",
    "sum_squared_error",
    "tangent_line",
    "TimeSoftmaxWithLoss",
    "to_numpy",
    "train",
    "TrainingError",
    "TrainingState",
    "TwoLayerNet",
    "why_unusable",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what checks gradients when it is asked for: it is nearly half of the library, and training needs none."""
    if name not in ("GradientCheck", "check_gradients"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    from . import gradcheck

    value = globals()[name] = getattr(gradcheck, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
