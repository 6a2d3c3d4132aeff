"""Fusion: group nodes so that each group becomes one kernel.

    %0 = contract %x, %w {i j k: i k, k j -> i j}          %2 = fused %x, %w, %b {
    %1 = add %0, %b                                  ──▶     %0 = contract %x, %w {…}
    %2 = max 0.0, %1                                         %1 = add %0, %b
                                                             %2 = max 0.0, %1
                                                             yield %2
                                                           }

A producer joins its consumer when the union still has one iteration frame (`grouping.find_frame`)
and no path leads out of the union and back in. Edges that would make a stored value disappear are
taken first, then edges that only spare a load. Cheap nodes (constants, broadcasts, transposes)
are copied into every group that reads them. A write in place (`update.W`) orders every reader of
the old value before the group that writes, and counts as a path. A loop, and a group that is
there already, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from nncompiler.errors import Span
from nncompiler.ir.analysis import updates
from nncompiler.ir.graph import Function, Node, Param, Value
from nncompiler.ir.op import lookup
from nncompiler.passes.dce import DeadCode
from nncompiler.passes.grouping import find_frame, is_closed, is_view


@dataclass(frozen=True, slots=True)
class Fuse:
    """`max_nodes` bounds a group's size; 1 gives every node its own kernel (with its cheap
    operands)."""

    name: ClassVar[str] = "fuse"
    nested: ClassVar[bool] = True
    max_nodes: int = 96

    def run(self, function: Function) -> Function:
        groups = _Groups(DeadCode().run(function), self.max_nodes)
        if self.max_nodes > 1:
            groups.merge_all()
        return groups.rebuild()


@dataclass(slots=True)
class _Group:
    """`nodes` are positions in the function, in order, copied cheap nodes included; `needs` are
    groups it must follow."""

    own: set[int]
    nodes: list[int] = field(default_factory=list)
    needs: set[int] = field(default_factory=set)


class _Groups:
    def __init__(self, function: Function, max_nodes: int) -> None:
        self.function, self.max_nodes = function, max_nodes
        self.nodes = function.nodes
        self.position = {v: k for k, n in enumerate(self.nodes) for v in n.outputs}
        self.results = {v for _, v in function.results}
        self.users = function.users()
        self.stored = set[int]()
        self.group_of: dict[int, int] = {}
        self.groups: dict[int, _Group] = {}
        while self._single_groups() or self._order_updates():
            pass

    def _single_groups(self) -> bool:
        """One group per node, cheap operands copied in. True where a copy leaves a group without
        a frame (a matrix times its own transpose): the cheap nodes are then stored, and the
        groups must be made again."""
        self.group_of.clear()
        self.groups.clear()
        for k, node in enumerate(self.nodes):
            if not is_view(node) and (not self._cheap(k) or self._must_exist(node)):
                self.group_of[k] = k
                self.groups[k] = self._closure({k})
        for group in self.groups.values():
            nodes = [self.nodes[n] for n in group.nodes]
            if not is_closed(nodes[0]) and find_frame(nodes, self._outputs(group)) is None:
                copied = {n for n in group.nodes if n not in group.own and self.nodes[n].inputs}
                if copied:
                    self.stored |= copied
                    return True
        return False

    def _cheap(self, k: int) -> bool:
        """Whether a node is copied into every group that reads it."""
        return lookup(self.nodes[k].op).cheap and k not in self.stored

    # --- what a group holds, and what it follows ---

    def _must_exist(self, node: Node) -> bool:
        """A cheap node that memory must hold: a result, or what a view looks at or a closed node
        reads."""
        return any(
            v in self.results or any(is_view(u) or is_closed(u) for u in self.users[v])
            for v in node.outputs
        )

    def _closure(self, own: set[int]) -> _Group:
        """The group of `own` nodes with the cheap nodes they read, and the groups it needs."""
        group, queue, seen = _Group(own), sorted(own), set(own)
        while queue:
            for v in self.nodes[queue.pop()].inputs:
                k = self._maker(v)
                if k is None or k in own:
                    continue
                cheap = k not in self.group_of or self._cheap(k)
                if cheap and not is_closed(self.nodes[min(own)]):
                    if k not in seen:
                        seen.add(k)
                        queue.append(k)
                else:
                    group.needs.add(self.group_of[k])
        group.needs |= {n for k in own if k in self.groups for n in self.groups[k].needs}
        group.nodes = sorted(seen)
        return group

    def _maker(self, value: Value) -> int | None:
        """The position of the node that computes a value, views looked through."""
        k = self.position.get(value)
        while k is not None and is_view(self.nodes[k]):
            k = self.position.get(self.nodes[k].inputs[0])
        return k

    def _order_updates(self) -> bool:
        """Every reader of an old value comes before the group that writes the new one over it.

        True where a cheap node that reads the old value was copied into a group that needs the
        new one: such nodes are then stored, and the groups must be made again.
        """
        readers: dict[Value, set[int]] = {}
        for g, group in self.groups.items():
            for value in {v for k in group.nodes for v in self._roots(k)}:
                readers.setdefault(value, set()).add(g)
        for new, old in updates(self.function).items():
            writer = self.group_of.get(self.position[new], -1)
            if writer not in self.groups:
                continue
            for reader in readers.get(old, set()) - {writer}:
                if self._reaches(self.groups[reader].needs, writer):
                    group = self.groups[reader]
                    self.stored |= {
                        n for n in group.nodes if n not in group.own and self.nodes[n].inputs
                    }
                    return True
                self.groups[writer].needs.add(reader)
        return False

    def _roots(self, k: int) -> set[Value]:
        """The values a node reads, views looked through."""
        found = set()
        for v in self.nodes[k].inputs:
            while (m := self.position.get(v)) is not None and is_view(self.nodes[m]):
                v = self.nodes[m].inputs[0]
            found.add(v)
        return found

    # --- merging ---

    def merge_all(self) -> None:
        changed = True
        while changed:
            changed = self._round(single=True)
            changed = self._round(single=False) or changed

    def _round(self, single: bool) -> bool:
        changed = False
        for k in sorted(self.group_of):
            for producer in self._producers(k, single):
                mine = self.group_of[k]
                if producer in self.groups and producer != mine and self._try(producer, mine):
                    changed = True
        return changed

    def _producers(self, k: int, single: bool) -> list[int]:
        """Groups that make what node k reads, largest value first; with `single`, values nobody
        else reads."""
        found: list[tuple[int, int]] = []
        seen, queue = {k}, [k]
        while queue:
            for v in self.nodes[queue.pop()].inputs:
                m = self.position.get(v)
                if m is None or m in seen or is_view(self.nodes[m]):
                    continue
                seen.add(m)
                if m not in self.group_of:
                    queue.append(m)
                elif not single or self._only_for(v, self.group_of[k]):
                    found.append((-v.type.nbytes, self.group_of[m]))
        return [g for _, g in sorted(found)]

    def _only_for(self, value: Value, group: int) -> bool:
        return value not in self.results and not any(
            self._escapes(u, self.groups[group]) for u in self.users[value]
        )

    def _try(self, producer: int, consumer: int) -> bool:
        """Merge two groups if the union is legal; the union keeps the consumer's number."""
        a, b = self.groups[producer], self.groups[consumer]
        if len(a.own) + len(b.own) > self.max_nodes or self._path_between(producer, consumer):
            return False
        if any(is_closed(self.nodes[k]) for k in (*a.own, *b.own)):
            return False
        union = self._closure(a.own | b.own)
        nodes = [self.nodes[k] for k in union.nodes]
        if self._views_itself(union) or find_frame(nodes, self._outputs(union)) is None:
            return False
        union.needs = (a.needs | b.needs) - {producer, consumer}
        del self.groups[producer]
        self.groups[consumer] = union
        self.group_of.update(dict.fromkeys(union.own, consumer))
        for other in self.groups.values():
            if producer in other.needs:
                other.needs.discard(producer)
                other.needs.add(consumer)
        return True

    def _views_itself(self, group: _Group) -> bool:
        """Whether the group reads a value of its own through a view, which must find it in
        memory."""
        return any(
            v in self.position
            and is_view(self.nodes[self.position[v]])
            and self._maker(v) in group.own
            for k in group.nodes
            for v in self.nodes[k].inputs
        )

    def _path_between(self, producer: int, consumer: int) -> bool:
        """Whether a path between the two leads through a third group, in either direction."""
        return self._reaches(self.groups[consumer].needs - {producer}, producer) or self._reaches(
            self.groups[producer].needs, consumer
        )

    def _reaches(self, start: Iterable[int], goal: int) -> bool:
        """Whether following `needs` from `start` leads to `goal`."""
        queue, seen = list(start), set[int]()
        while queue:
            g = queue.pop()
            if g == goal:
                return True
            if g not in seen:
                seen.add(g)
                queue.extend(self.groups[g].needs)
        return False

    def _outputs(self, group: _Group) -> list[Value]:
        """Values of the group's own nodes that are needed outside it."""
        found = []
        for k in sorted(group.own):
            for v in self.nodes[k].outputs:
                outside = any(self._escapes(u, group) for u in self.users[v])
                if outside or v in self.results:
                    found.append(v)
        return found

    def _escapes(self, user: Node, group: _Group) -> bool:
        """Whether a user of a value runs outside the group; a cheap user runs in every group that
        copies it."""
        k = self.position[user.outputs[0]]
        if is_view(user) or (k in self.group_of and k not in group.own):
            return True
        if k in group.own and not self._cheap(k):
            return False
        return any(self._escapes(u, group) for v in user.outputs for u in self.users[v])

    # --- the new function ---

    def rebuild(self) -> Function:
        """The function with one node per group, in an order that respects every need."""
        order = self._ordered()
        nodes: list[Node] = []
        done: set[int] = set()
        for g in order:
            group = self.groups[g]
            self._emit_views(group, nodes, done)
            nodes.append(_fused([self.nodes[k] for k in group.nodes], self._outputs(group)))
        for k, node in enumerate(self.nodes):
            if is_view(node) and k not in done and node.output in self.results:
                self._emit_view(k, nodes, done)
        return replace(self.function, nodes=tuple(nodes))

    def _ordered(self) -> list[int]:
        order: list[int] = []
        placed: set[int] = set()
        waiting = sorted(self.groups, key=lambda g: max(self.groups[g].own))
        while waiting:
            ready = next(g for g in waiting if self.groups[g].needs <= placed)
            waiting.remove(ready)
            placed.add(ready)
            order.append(ready)
        return order

    def _emit_views(self, group: _Group, nodes: list[Node], done: set[int]) -> None:
        for k in group.nodes:
            for v in self.nodes[k].inputs:
                m = self.position.get(v)
                if m is not None and is_view(self.nodes[m]):
                    self._emit_view(m, nodes, done)

    def _emit_view(self, k: int, nodes: list[Node], done: set[int]) -> None:
        if k in done:
            return
        base = self.position.get(self.nodes[k].inputs[0])
        if base is not None and is_view(self.nodes[base]):
            self._emit_view(base, nodes, done)
        done.add(k)
        nodes.append(self.nodes[k])


def _fused(nodes: Sequence[Node], outputs: Sequence[Value]) -> Node:
    """A `fused` node whose region is `nodes`; its parameters and results keep their names."""
    if len(nodes) == 1:
        return nodes[0]
    made = {v for n in nodes for v in n.outputs}
    inputs = tuple(dict.fromkeys(v for n in nodes for v in n.inputs if v not in made))
    body = Function(
        "body",
        tuple(Param("operand", v) for v in inputs),
        tuple(nodes),
        tuple((v.name, v) for v in outputs),
    )
    return Node("fused", inputs, tuple(outputs), (), body, _span(nodes))


def _span(nodes: Sequence[Node]) -> Span | None:
    """Where a group stems from: its first node that is more than arithmetic, or else its first.
    A constant says little, since equal ones of all lines are one."""
    spans = [(lookup(n.op).kind, n.span) for n in nodes if n.span and n.inputs]
    spans += [("map", n.span) for n in nodes if n.span]
    return next((span for kind, span in spans if kind != "map"), spans[0][1] if spans else None)
