"""Descent of losses: Adam, and gradients that are recorded once and run from the record.

Autograd notes each operation on the way forward and follows its notes on the way back, and Python
starts one operation after another. For networks of some dozen units that takes several times as
long as the operations themselves, which are the same in every update. `Recorded` has them noted
once, both ways, as one list, and torch's interpreter runs the list from then on: the same
operations, the same numbers to the last bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

Function = Callable[..., tuple[Tensor, ...]]
"""Of tensors, or tuples of such."""


_ONE = torch.ones(())
"""The number, which torch would make a tensor of in every call."""


class Adam:
    """Moves all weights of a module down a gradient, in one operation of torch.

    Adam (arXiv:1412.6980) with decoupled decay (AdamW, arXiv:1711.05101).

    Attributes:
        weights: What it moves.
    """

    def __init__(self, module: nn.Module, rate: float, *, decay: float = 0.0) -> None:
        """Begin.

        Args:
            module: Whose weights.
            rate: Learning rate.
            decay: Of the weights, times the rate.
        """
        self._rate, self._decay = rate, decay
        self.weights: list[Tensor] = list(module.parameters())
        self._values = detached(self.weights)
        steps = torch.zeros(())  # of all weights, which move together
        self._remembered = {
            "mean": [torch.zeros_like(values) for values in self._values],
            "square": [torch.zeros_like(values) for values in self._values],
            "steps": [steps for _ in self._values],
        }

    def gradient(self, loss: Tensor) -> tuple[Tensor, ...]:
        """Gradient of a loss in the weights."""
        return torch.autograd.grad(loss, self.weights)

    def step(self, gradient: list[Tensor]) -> None:
        """Move the weights down a gradient."""
        mean, square, steps = self._remembered.values()
        steps[0].add_(_ONE)
        torch._fused_adamw_(
            self._values,
            gradient,
            mean,
            square,
            [],
            steps,
            lr=self._rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=self._decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def descend(self, loss: Tensor) -> None:
        """Move the weights down the gradient of a loss."""
        self.step(list(self.gradient(loss)))

    def arrays(self) -> dict[str, npt.NDArray]:
        """Everything remembered, not the weights; `restore` takes it back."""
        return {
            f"{name}.{number}": tensor.numpy()
            for name, tensors in self._remembered.items()
            for number, tensor in enumerate(tensors)
        }

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """Remember what `arrays` of another one gave."""
        for name, tensors in self._remembered.items():
            for number, tensor in enumerate(tensors):
                tensor.copy_(torch.from_numpy(arrays[f"{name}.{number}"]))


class Follower:
    """Moves the weights of a copy towards those of its original (Polyak averaging)."""

    def __init__(self, copy: nn.Module, original: nn.Module) -> None:
        """Make it."""
        self._values = detached(copy.parameters())
        self._towards = detached(original.parameters())

    def move(self, tau: float) -> None:
        """``theta' <- tau * theta + (1 - tau) * theta'`` (arXiv:1509.02971)."""
        torch._foreach_lerp_(self._values, self._towards, tau)


class Recorded:
    """A function run by a record of its operations, one for arguments of each shape.

    It must be made of operations of torch alone, and which these are may depend on the shapes of
    its arguments and on no value.
    """

    def __init__(self, function: Function, reads: Iterable[Tensor]) -> None:
        """Make it.

        Args:
            function: What is recorded; what it gives is detached.
            reads: All weights that it depends on.
        """
        self._function = function
        self._reads = list(reads)
        self._records: dict[tuple[torch.Size, ...], Function] = {}

    def __call__(self, *arguments: Any) -> tuple[Tensor, ...]:
        """Give what the function gives."""
        given = list(tensors(arguments))
        shapes = tuple([tensor.shape for tensor in given])
        run = self._records.get(shapes)
        if run is None:
            run = self._records[shapes] = self._record(arguments, given)
        with torch.inference_mode():  # nobody asks for gradients of what is recorded
            return run(*given)

    def _record(self, arguments: tuple[Any, ...], given: list[Tensor]) -> Function:
        def known(*_: Tensor) -> tuple[Tensor, ...]:
            return self._function(*arguments)

        # Tensors are known where the function meets them, whatever they were passed as.
        operations = make_fx(known)(*self._reads, *given)
        _without_views_of_the_same(operations.graph)
        _hold_weights(operations, self._reads)
        _hold_numbers(operations)
        for node in operations.graph.nodes:  # the interpreter finds the overload itself
            node.target = _name(node)
        operations.recompile()
        with warnings.catch_warnings():
            # It is deprecated, and the only interpreter of torch that needs no C++ compiler.
            warnings.simplefilter("ignore")
            run: Function = torch.jit.script(operations).forward
        return run


_VIEWS = frozenset(
    getattr(torch.ops.aten, name)
    for name in (
        *("detach", "view", "_unsafe_view", "expand"),
        *("t", "transpose", "unsqueeze", "squeeze"),
    )
)
"""Operations that give the memory of their first argument from its beginning on."""


def _name(node: Node) -> Any:
    """The operation of a node, whatever the types of its arguments."""
    return getattr(node.target, "overloadpacket", node.target)


def _without_views_of_the_same(graph: Graph) -> None:
    """Take out the views that show what a tensor they were made from shows already.

    Autograd detaches, expands to the size there is, and transposes there and back: a quarter of
    all operations.
    """
    for node in graph.nodes:
        same, source = None, node
        while _name(source) in _VIEWS:
            source = source.args[0]
            if _layout(source) == _layout(node):
                same = source
        if same is not None:
            node.replace_all_uses_with(same)
    graph.eliminate_dead_code()


def _hold_weights(operations: GraphModule, weights: Sequence[Tensor]) -> None:
    """Put the weights, and views of them, into a record whose first arguments they were.

    They are the same memory, so that who moves the weights moves them in the record.
    """
    arguments = operations.graph.find_nodes(op="placeholder")[: len(weights)]
    held = dict(zip(arguments, detached(weights), strict=True))
    for node in operations.graph.nodes:
        if _name(node) in _VIEWS and node.args[0] in held:
            held[node] = node.target(held[node.args[0]], *node.args[1:])
    for node, tensor in held.items():
        node.replace_all_uses_with(_hold(operations, tensor, node))
        operations.graph.erase_node(node)


_WITH_NUMBERS = frozenset({torch.ops.aten.mul, torch.ops.aten.div})


def _hold_numbers(operations: GraphModule) -> None:
    """Make tensors of factors and divisors; given numbers, torch makes them in every call."""
    for node in operations.graph.nodes:
        if _name(node) in _WITH_NUMBERS and not isinstance(node.args[1], Node):
            number = torch.tensor(node.args[1], dtype=node.meta["tensor_meta"].dtype)
            node.update_arg(1, _hold(operations, number, node))


def _hold(operations: GraphModule, tensor: Tensor, node: Node) -> Node:
    """Put a tensor into a record, for the node to find and those after it."""
    name = f"held_{len(list(operations.buffers()))}"
    operations.register_buffer(name, tensor)
    with operations.graph.inserting_before(node):
        return operations.graph.get_attr(name)


def _layout(node: Node) -> tuple[Any, ...]:
    """What tells views of one memory apart that begin together; nothing of constants."""
    tensor = node.meta.get("tensor_meta")
    if tensor is None:
        return ()
    moves = (step for step, size in zip(tensor.stride, tensor.shape, strict=True) if size > 1)
    return (tensor.dtype, tuple(tensor.shape), *moves)


def detached(weights: Iterable[Tensor]) -> list[Tensor]:
    """The same memory, of which autograd takes no notice."""
    return [tensor.detach() for tensor in weights]


def tensors(parts: Iterable[Any]) -> Iterator[Tensor]:
    """Tensors of nested tuples, in order."""
    for part in parts:
        if isinstance(part, Tensor):
            yield part
        else:
            yield from tensors(part)
