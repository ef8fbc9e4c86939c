"""One kernel in its forms: values, and gradients of a weighted sum of them, from one graph per form."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn, ops

from src.models.kernels import kernel_form

TRAINING_FORMS = ("native", "composed")


@dataclass(frozen=True)
class Result:
    """What one form computed."""

    value: np.ndarray
    gradients: dict[str, np.ndarray]


class WeightedSum(nn.Cell):
    """``net(*inputs)``, and the gradients of its products with `weight`: of all inputs, then of all parameters."""

    def __init__(self, net: nn.Cell, weight: np.ndarray, num_inputs: int):
        super().__init__(auto_prefix=False)
        self.net, self.weight = net, Tensor(weight)
        positions = tuple(range(num_inputs))
        self.value_and_grad = ops.value_and_grad(self.forward, positions, net.trainable_params() or None, has_aux=True)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        value = self.net(*inputs)
        return ops.sum(value * self.weight), value

    def construct(self, *inputs: Tensor) -> tuple:
        (_, value), gradients = self.value_and_grad(*inputs)
        return value, gradients

    def result(self, *inputs: np.ndarray) -> Result:
        """One run; the gradients are called ``input0``, ``input1`` and by the parameters' names."""
        value, gradients = self(*map(Tensor, inputs))
        parameters = self.net.trainable_params()
        of_inputs, of_parameters = gradients if parameters else (gradients, ())
        of_inputs = of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)
        names = [f"input{index}" for index in range(len(inputs))] + [parameter.name for parameter in parameters]
        arrays = [gradient.asnumpy() for gradient in (*of_inputs, *of_parameters)]
        return Result(value.asnumpy(), dict(zip(names, arrays, strict=True)))


def build(make: Callable[[], nn.Cell], form: str, seed: int = 0) -> nn.Cell:
    """A kernel in this form, its parameters drawn from the seed."""
    with kernel_form(form):
        net = make()
    generator = np.random.default_rng(seed)
    for parameter in net.trainable_params():
        parameter.set_data(Tensor(generator.standard_normal(parameter.shape).astype(np.float32)))
    return net


def differentiate(net: nn.Cell, *inputs: np.ndarray, weight: np.ndarray) -> Result:
    """Values and gradients of one run."""
    return WeightedSum(net, weight, len(inputs)).result(*inputs)


def check_forms(
    make: Callable[[], nn.Cell], *inputs: np.ndarray, expected: np.ndarray, tolerance: float, gradient_tolerance: float
) -> None:
    """All forms have the expected values, and the two that train the same gradients.

    Tolerances are absolute, for results of the order of 1 to 10 in float32.
    """
    weight = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)
    results = {form: differentiate(build(make, form), *inputs, weight=weight) for form in TRAINING_FORMS}
    for result in results.values():
        np.testing.assert_allclose(result.value, expected, rtol=0, atol=tolerance)
    export = build(make, "export").set_train(False)
    np.testing.assert_allclose(export(*map(Tensor, inputs)).asnumpy(), expected, rtol=0, atol=tolerance)
    native, composed = (results[form].gradients for form in TRAINING_FORMS)
    assert native.keys() == composed.keys()
    for name, gradient in native.items():
        np.testing.assert_allclose(composed[name], gradient, rtol=0, atol=gradient_tolerance, err_msg=name)
        assert np.abs(gradient).max() > 100 * gradient_tolerance, f"{name} proves nothing"
