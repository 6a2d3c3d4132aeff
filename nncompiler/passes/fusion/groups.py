"""Groups of nodes on their way to kernels: what each holds, needs and makes.

Cheap nodes (constants, broadcasts, transposes) are copied into every group that reads them, and so
is what follows from random draws and counts alone, as the mask of a dropout: the backward pass
draws it again. A write in place (`update.W`) orders every reader of the old value before the group
that writes. A loop, and a group that is there already, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nncompiler.ir.analysis import generated, updates
from nncompiler.ir.graph import Function
from nncompiler.passes.fusion.axis_labels import AxisLabels
from nncompiler.passes.fusion.grouping import Found, Spaces, is_closed
from nncompiler.record import dataclass, field


@dataclass(slots=True)
class Group:
    """`nodes` are positions in the function, in order, copied cheap nodes included; `needs` are
    groups it must follow, and it is in the `needs` of its `users`. Its `level` is above those of
    all that it needs."""

    own: set[int]
    nodes: list[int] = field(default_factory=list)
    needs: set[int] = field(default_factory=set)
    users: set[int] = field(default_factory=set)
    level: int = 0
    #: How many of the nodes are of these kinds.
    contracts: int = 0
    folds: int = 0
    #: Values that are needed outside, and the axes of all: found when first asked for.
    outputs: list[str] | None = None
    labels: AxisLabels | None = None


class Groups:
    """One group for each node that is not cheap; `merge` makes two of them one."""

    def __init__(self, function: Function) -> None:
        self.function = function
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
        self.groups: dict[int, Group] = {}
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
            if not self.view[k] and (not self.is_cheap(k) or self._must_exist(k)):
                self.group_of[k] = k
                self.groups[k] = group = self._closure({k})
                group.level = k
                for n in group.needs:
                    self.groups[n].users.add(k)
        for group in self.groups.values():
            copied = self._copied(group)
            if copied and self.frame(group) is None:
                self.stored |= copied
                return True
        return False

    def _copied(self, group: Group) -> set[int]:
        """The nodes of a group that other groups have too and that could be stored instead."""
        return {k for k in group.nodes if k not in group.own and self.nodes[k].inputs}

    def is_cheap(self, k: int) -> bool:
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

    def _closure(self, own: set[int]) -> Group:
        """The group of `own` nodes with the cheap nodes they read, and the groups it needs."""
        group, queue, seen = Group(own), sorted(own), set(own)
        copies = not self.closed[queue[0]]
        while queue:
            reader = queue.pop()
            for k in self.makers[reader]:
                if k in own:
                    continue
                viewed = k in self.behind[reader]  # a view looks at memory, a copy has none
                if copies and not viewed and (k not in self.group_of or self.is_cheap(k)):
                    if k not in seen:
                        seen.add(k)
                        queue.append(k)
                else:
                    group.needs.add(self.group_of[k])
        group.needs |= {n for k in own if k in self.groups for n in self.groups[k].needs}
        group.nodes = sorted(seen)
        kinds = [self.spaces.kinds[k] for k in own]
        group.contracts, group.folds = kinds.count("contract"), kinds.count("fold")
        return group

    def _order_updates(self) -> bool:
        """Every reader of an old value comes before the group that writes the new one over it.

        True where a cheap node that reads the old value was copied into a group that needs the
        new one: such nodes are then stored, and the groups must be made again.
        """
        replaced = updates(self.function)
        readers: dict[str, set[int]] = {old.name: set() for old in replaced.values()}
        read = [[v for v in self._roots(k) if v in readers] for k in range(len(self.nodes))]
        for g, group in self.groups.items():
            for k in group.nodes:
                for value in read[k]:
                    readers[value].add(g)
        for new, old in replaced.items():
            writer = self.group_of.get(self.position[new.name], -1)
            if writer not in self.groups:
                continue
            for reader in readers[old.name] - {writer}:
                if self.reaches(self.groups[reader].needs, writer):
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

    # --- how groups follow each other ---

    def path_between(self, producer: int, consumer: int) -> bool:
        """Whether a path between the two leads through a third group, in either direction."""
        return self.reaches(self.groups[consumer].needs - {producer}, producer) or self.reaches(
            self.groups[producer].needs, consumer
        )

    def reaches(self, start: Iterable[int], goal: int) -> bool:
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

    def merge(self, producer: int, consumer: int, union: Group) -> None:
        """Put `union` in place of two groups; it keeps the consumer's number."""
        a, b = self.groups.pop(producer), self.groups[consumer]
        union.needs = (a.needs | b.needs) - {producer, consumer}
        union.users = (a.users | b.users) - {producer, consumer}
        union.level = max(a.level, b.level)
        self.groups[consumer] = union
        self.group_of.update(dict.fromkeys(union.own, consumer))
        for n in a.needs - {consumer}:
            self.groups[n].users -= {producer}
            self.groups[n].users |= {consumer}
        for n in a.users - {consumer}:
            self.groups[n].needs -= {producer}
            self.groups[n].needs |= {consumer}
        self._lift(consumer)

    # --- what groups make ---

    def union(self, a: Group, b: Group) -> Group:
        """The nodes of both. What neither had to hand out, both together need not either."""
        both = Group(a.own | b.own, sorted({*a.nodes, *b.nodes}))
        both.contracts, both.folds = a.contracts + b.contracts, a.folds + b.folds
        made = [*self.outputs_of(a), *self.outputs_of(b)]
        both.outputs = self._needed(both, sorted(made, key=self.position.__getitem__))
        both.labels = self.labels_of(a).joined(self.labels_of(b))
        return both

    def frame(self, group: Group) -> Found | None:
        """What frame the nest of a group has, None where it is not one nest."""
        return self.spaces.find(group.nodes, self.outputs_of(group), self.labels_of(group))

    def labels_of(self, group: Group) -> AxisLabels:
        if group.labels is None:
            group.labels = self.spaces.labels(group.nodes)
        return group.labels

    def outputs_of(self, group: Group) -> list[str]:
        """Values of the group's own nodes that are needed outside it."""
        if group.outputs is None:
            made = [v for k in sorted(group.own) for v in self.outputs[k]]
            group.outputs = self._needed(group, made)
        return group.outputs

    def _needed(self, group: Group, made: Sequence[str]) -> list[str]:
        return [
            v
            for v in made
            if v in self.results or any(self.escapes(u, group) for u in self.users[v])
        ]

    def escapes(self, user: int, group: Group) -> bool:
        """Whether a user of a value runs outside the group; a cheap user runs in every group that
        copies it."""
        if user in group.own:
            if not self.is_cheap(user):
                return False
        elif self.view[user] or user in self.group_of:
            return True
        readers = (u for v in self.outputs[user] for u in self.users[v])
        return any(self.escapes(u, group) for u in readers)
