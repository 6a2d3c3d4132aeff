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
are copied into every group that reads them, and so is what follows from random draws and counts
alone, as the mask of a dropout: the backward pass draws it again. A write in place (`update.W`)
orders every reader of the old value before the group that writes, and counts as a path. A loop,
and a group that is there already, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from nncompiler.errors import Span
from nncompiler.ir.analysis import generated, updates
from nncompiler.ir.graph import Function, Node, Param, Value
from nncompiler.ir.op import lookup
from nncompiler.passes.dce import DeadCode
from nncompiler.passes.grouping import Spaces, is_closed
from nncompiler.record import dataclass, field, replace


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
    groups it must follow, and it is in the `needs` of its `users`. Its `level` is above those of
    all that it needs."""

    own: set[int]
    nodes: list[int] = field(default_factory=list)
    needs: set[int] = field(default_factory=set)
    users: set[int] = field(default_factory=set)
    level: int = 0


class _Groups:
    def __init__(self, function: Function, max_nodes: int) -> None:
        self.function, self.max_nodes = function, max_nodes
        self.nodes = function.nodes
        self.spaces = spaces = Spaces(self.nodes)
        # values by name, whose hash is there already
        self.position, self.inputs, self.outputs = spaces.maker, spaces.inputs, spaces.outputs
        self.results = {v.name for _, v in function.results}
        self.users = self._users()
        self.view = [
            kind == "view" and leaf
            for kind, leaf in zip(spaces.kinds, spaces.leaf_only, strict=True)
        ]
        self.closed = [is_closed(n) for n in self.nodes]
        again = generated(self.nodes)
        self.cheap = [
            cheap or any(v in again for v in n.outputs)
            for cheap, n in zip(spaces.cheap, self.nodes, strict=True)
        ]
        # per node the nodes whose values it reads, views looked through; all, and only those
        # behind a view
        found = [self._makers(names) for names in self.inputs]
        self.makers = [(*direct, *behind) for direct, behind in found]
        self.behind = [behind for _, behind in found]
        self.stored = set[int]()
        self.group_of: dict[int, int] = {}
        self.groups: dict[int, _Group] = {}
        self.refused = set[tuple[int, ...]]()  # unions that can never be one nest
        while self._single_groups() or self._order_updates():
            pass

    def _users(self) -> dict[str, list[int]]:
        """The nodes that read each value."""
        found: dict[str, list[int]] = {v: [] for v in self.position}
        for k, inputs in enumerate(self.inputs):
            for v in dict.fromkeys(inputs):
                if v in found:
                    found[v].append(k)
        return found

    def _makers(self, inputs: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The positions of the nodes that compute what a node reads: at once, and under views."""
        direct: list[int] = []
        behind: list[int] = []
        for v in inputs:
            k = first = self.position.get(v)
            while k is not None and self.view[k]:
                k = self.position.get(self.inputs[k][0])
            if k is not None:
                (direct if k == first else behind).append(k)
        return tuple(direct), tuple(behind)

    def _single_groups(self) -> bool:
        """One group per node, cheap operands copied in. True where a copy leaves a group without
        a frame (a matrix times its own transpose): the cheap nodes are then stored, and the
        groups must be made again."""
        self.group_of.clear()
        self.groups.clear()
        for k in range(len(self.nodes)):
            if not self.view[k] and (not self._cheap(k) or self._must_exist(k)):
                self.group_of[k] = k
                self.groups[k] = group = self._closure({k})
                group.level = k
                for n in group.needs:
                    self.groups[n].users.add(k)
        for group in self.groups.values():
            copied = self._copied(group)
            if copied and self.spaces.find(group.nodes, self._outputs(group)) is None:
                self.stored |= copied
                return True
        return False

    def _copied(self, group: _Group) -> set[int]:
        """The nodes of a group that other groups have too and that could be stored instead."""
        return {k for k in group.nodes if k not in group.own and self.nodes[k].inputs}

    def _cheap(self, k: int) -> bool:
        """Whether a node is copied into every group that reads it."""
        return self.cheap[k] and k not in self.stored

    # --- what a group holds, and what it follows ---

    def _must_exist(self, k: int) -> bool:
        """A cheap node that memory must hold: a result, or what a view looks at or a closed node
        reads."""
        return any(
            v in self.results or any(self.view[u] or self.closed[u] for u in self.users[v])
            for v in self.outputs[k]
        )

    def _closure(self, own: set[int]) -> _Group:
        """The group of `own` nodes with the cheap nodes they read, and the groups it needs."""
        group, queue, seen = _Group(own), sorted(own), set(own)
        copies = not self.closed[queue[0]]
        while queue:
            for k in self.makers[queue.pop()]:
                if k in own:
                    continue
                if copies and (k not in self.group_of or self._cheap(k)):
                    if k not in seen:
                        seen.add(k)
                        queue.append(k)
                else:
                    group.needs.add(self.group_of[k])
        group.needs |= {n for k in own if k in self.groups for n in self.groups[k].needs}
        group.nodes = sorted(seen)
        return group

    def _order_updates(self) -> bool:
        """Every reader of an old value comes before the group that writes the new one over it.

        True where a cheap node that reads the old value was copied into a group that needs the
        new one: such nodes are then stored, and the groups must be made again.
        """
        readers: dict[str, set[int]] = {}
        for g, group in self.groups.items():
            for value in {v for k in group.nodes for v in self._roots(k)}:
                readers.setdefault(value, set()).add(g)
        for new, old in updates(self.function).items():
            writer = self.group_of.get(self.position[new.name], -1)
            if writer not in self.groups:
                continue
            for reader in readers.get(old.name, set()) - {writer}:
                if self._reaches(self.groups[reader].needs, writer):
                    self.stored |= self._copied(self.groups[reader])
                    return True
                self.groups[writer].needs.add(reader)
                self.groups[reader].users.add(writer)
                self._lift(reader)
        return False

    def _roots(self, k: int) -> set[str]:
        """The values a node reads, views looked through."""
        found = set()
        for v in self.inputs[k]:
            while (m := self.position.get(v)) is not None and self.view[m]:
                v = self.inputs[m][0]
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
                m = self.position.get(v.name)
                if m is None or m in seen or self.view[m]:
                    continue
                seen.add(m)
                if m not in self.group_of:
                    queue.append(m)
                elif not single or self._only_for(v.name, self.group_of[k]):
                    found.append((-v.type.nbytes, self.group_of[m]))
        return [g for _, g in sorted(found)]

    def _only_for(self, value: str, group: int) -> bool:
        return value not in self.results and not any(
            self._escapes(u, self.groups[group]) for u in self.users[value]
        )

    def _try(self, producer: int, consumer: int) -> bool:
        """Merge two groups if the union is legal; the union keeps the consumer's number."""
        a, b = self.groups[producer], self.groups[consumer]
        pair = (producer, len(a.own), consumer, len(b.own))  # groups only grow: it names both
        if pair in self.refused or self._path_between(producer, consumer):
            return False
        union = self._union(a, b)
        if union is None:
            self.refused.add(pair)
            return False
        union.needs = (a.needs | b.needs) - {producer, consumer}
        union.users = (a.users | b.users) - {producer, consumer}
        union.level = max(a.level, b.level)
        del self.groups[producer]
        self.groups[consumer] = union
        self.group_of.update(dict.fromkeys(union.own, consumer))
        for n in a.needs - {consumer}:
            self.groups[n].users -= {producer}
            self.groups[n].users |= {consumer}
        for n in a.users - {consumer}:
            self.groups[n].needs -= {producer}
            self.groups[n].needs |= {consumer}
        self._lift(consumer)
        return True

    def _union(self, a: _Group, b: _Group) -> _Group | None:
        """The nodes of both in one group, or None where they do not form one nest."""
        if len(a.own) + len(b.own) > self.max_nodes:
            return None
        if any(self.closed[k] for k in (*a.own, *b.own)):
            return None
        union = _Group(a.own | b.own, sorted({*a.nodes, *b.nodes}))
        if self._views_itself(union):
            return None
        found = self.spaces.find(union.nodes, self._outputs(union))
        large = found and self.spaces.rows_are_large(union.nodes, found.cross)
        return union if found and not large else None

    def _views_itself(self, group: _Group) -> bool:
        """Whether the group reads a value of its own through a view, which must find it in
        memory."""
        return any(m in group.own for k in group.nodes for m in self.behind[k])

    def _path_between(self, producer: int, consumer: int) -> bool:
        """Whether a path between the two leads through a third group, in either direction."""
        return self._reaches(self.groups[consumer].needs - {producer}, producer) or self._reaches(
            self.groups[producer].needs, consumer
        )

    def _reaches(self, start: Iterable[int], goal: int) -> bool:
        """Whether following `needs` from `start` leads to `goal`."""
        floor, groups = self.groups[goal].level, self.groups
        queue, seen = list(start), set[int]()
        while queue:
            g = queue.pop()
            if g == goal:
                return True
            if g not in seen and groups[g].level > floor:
                seen.add(g)
                queue.extend(groups[g].needs)
        return False

    def _lift(self, group: int) -> None:
        """Put the levels of all that need `group` above its own again."""
        queue = [group]
        while queue:
            found = self.groups[queue.pop()]
            for user in found.users:
                if self.groups[user].level <= found.level:
                    self.groups[user].level = found.level + 1
                    queue.append(user)

    def _outputs(self, group: _Group) -> list[str]:
        """Values of the group's own nodes that are needed outside it."""
        found = []
        for k in sorted(group.own):
            for v in self.outputs[k]:
                if v in self.results or any(self._escapes(u, group) for u in self.users[v]):
                    found.append(v)
        return found

    def _escapes(self, user: int, group: _Group) -> bool:
        """Whether a user of a value runs outside the group; a cheap user runs in every group that
        copies it."""
        if user in group.own:
            if not self._cheap(user):
                return False
        elif self.view[user] or user in self.group_of:
            return True
        readers = (u for v in self.outputs[user] for u in self.users[v])
        return any(self._escapes(u, group) for u in readers)

    # --- the new function ---

    def rebuild(self) -> Function:
        """The function with one node per group, in an order that respects every need."""
        order = self._ordered()
        values = {v.name: v for n in self.nodes for v in n.outputs}
        nodes: list[Node] = []
        done: set[int] = set()
        for g in order:
            group = self.groups[g]
            self._emit_views(group, nodes, done)
            outputs = [values[v] for v in self._outputs(group)]
            nodes.append(fused([self.nodes[k] for k in group.nodes], outputs))
        for k, node in enumerate(self.nodes):
            if self.view[k] and k not in done and node.output.name in self.results:
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
            for v in self.inputs[k]:
                m = self.position.get(v)
                if m is not None and self.view[m]:
                    self._emit_view(m, nodes, done)

    def _emit_view(self, k: int, nodes: list[Node], done: set[int]) -> None:
        if k in done:
            return
        base = self.position.get(self.inputs[k][0])
        if base is not None and self.view[base]:
            self._emit_view(base, nodes, done)
        done.add(k)
        nodes.append(self.nodes[k])


def fused(nodes: Sequence[Node], outputs: Sequence[Value]) -> Node:
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
