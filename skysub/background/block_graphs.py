"""Read a Dask array a second time, instead of holding it from one use to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
from dask.array.utils import meta_from_array
from dask.base import clone_key, optimize
from dask.graph_manipulation import bind
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer
from dask.task_spec import GraphNode, Task, TaskRef

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["read_again"]


def read_again(image: da.Array, *, after: da.Array) -> da.Array:
    """Give an array under other keys, whose sources wait until something else is known.

    Under the same keys a scheduler would keep each block from its first use until its last; and without
    the wait it could read blocks early and hold them.

    Parameters
    ----------
    image
        Any array.
    after
        What to wait for: an array with as many chunks along the first axis as ``image``, or one for all.
    """
    if after.numblocks[0] == 1:
        return _bound(image, after)
    # binding copies all of the graph it is given, so that each part comes with its own alone
    parts = [optimize(image.blocks[i])[0] for i in range(image.numblocks[0])]
    return da.concatenate([_bound(part, after.blocks[i]) for i, part in enumerate(parts)])


def _bound(image: da.Array, known: da.Array) -> da.Array:
    graph = image.dask
    layers = {
        name: _Renamable(layer) if isinstance(layer, MaterializedLayer) else layer
        for name, layer in graph.layers.items()
    }
    renamable = HighLevelGraph(layers, graph.dependencies)
    image = da.Array(renamable, image.name, image.chunks, dtype=image.dtype, meta=meta_from_array(image))
    return bind(image, known, seed=known.name)


class _Renamable(MaterializedLayer):
    """A layer that `bind` can copy: Dask's own leaves the keys inside `GraphNode` as they were.

    That is https://github.com/dask/dask/issues/12455.
    """

    def clone(self, keys: set[Any], seed: Hashable, bind_to: Any = None) -> tuple[Layer, bool]:
        """Copy the layer, with ``keys`` renamed, and nodes without any of them waiting for ``bind_to``."""
        nodes: dict[Any, Any] = {}
        waits = False
        for key, node in self.items():
            if isinstance(node, GraphNode):
                new = clone_key(key, seed)
                renamed = {old: clone_key(old, seed) for old in node.dependencies & keys}
                nodes[new] = node.substitute(renamed, key=new)
                if not renamed and bind_to is not None:
                    nodes[new] = Task(new, _first, nodes[new], TaskRef(bind_to))
                    waits = True
            else:
                copy, bound = MaterializedLayer({key: node}).clone(keys, seed, bind_to)
                nodes.update(copy)
                waits |= bound
        return MaterializedLayer(nodes), waits


def _first(value: Any, _: Any) -> Any:
    return value
