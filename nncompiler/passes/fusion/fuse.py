"""Fusion: group nodes so that each group becomes one kernel.

    %0 = contract %x, %w {i j k: i k, k j -> i j}          %2 = fused %x, %w, %b {
    %1 = add %0, %b                                  ──▶     %0 = contract %x, %w {…}
    %2 = max 0.0, %1                                         %1 = add %0, %b
                                                             %2 = max 0.0, %1
                                                             yield %2
                                                           }

A producer joins its consumer when the union still has one iteration frame (`grouping`) and no path
leads out of the union and back in; a write in place counts as a path (`groups`). Edges that would
make a stored value disappear are taken first, then edges that only spare a load.
"""

from __future__ import annotations

from typing import ClassVar

from nncompiler.ir.graph import Function
from nncompiler.passes.fusion.groups import Group, Groups
from nncompiler.passes.fusion.regroup import regrouped
from nncompiler.passes.graph.dce import DeadCode
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Fuse:
    """`max_nodes` bounds a group's size; 1 gives every node its own kernel (with its cheap
    operands)."""

    name: ClassVar[str] = "fuse"
    nested: ClassVar[bool] = True
    max_nodes: int = 96

    def run(self, function: Function) -> Function:
        groups = Groups(DeadCode().run(function))
        if self.max_nodes > 1:
            _Merging(groups, self.max_nodes).run()
        return regrouped(groups)


class _Merging:
    def __init__(self, groups: Groups, max_nodes: int) -> None:
        self.all, self.max_nodes = groups, max_nodes
        self.refused = set[tuple[int, ...]]()  # unions that can never be one nest
        #: What each node with a group reads: minus the size, the value, its maker.
        self.reads = {k: self._reads(k) for k in sorted(groups.group_of)}

    def _reads(self, k: int) -> list[tuple[int, str, int]]:
        """Looking through the cheap nodes that are copied."""
        g = self.all
        found: list[tuple[int, str, int]] = []
        seen, queue = {k}, [k]
        while queue:
            for v in g.nodes[queue.pop()].inputs:
                m = g.position.get(v.name)
                if m is None or m in seen or g.view[m]:
                    continue
                seen.add(m)
                if m in g.group_of:
                    found.append((-v.type.nbytes, v.name, m))
                else:
                    queue.append(m)
        return found

    def run(self) -> None:
        changed = True
        while changed:
            changed = self._round(single=True)
            changed = self._round(single=False) or changed

    def _round(self, single: bool) -> bool:
        groups, changed = self.all, False
        for k in self.reads:
            for producer in self._producers(k, single):
                mine = groups.group_of[k]
                if producer in groups.groups and producer != mine and self._try(producer, mine):
                    changed = True
        return changed

    def _producers(self, k: int, single: bool) -> list[int]:
        """Groups that make what node k reads, largest value first; with `single`, values nobody
        else reads."""
        group_of = self.all.group_of
        mine = group_of[k]
        found = [
            (size, group_of[m])
            for size, value, m in self.reads[k]
            if group_of[m] != mine and not (single and self._read_elsewhere(value, mine))
        ]
        return [g for _, g in sorted(found)]

    def _read_elsewhere(self, value: str, group: int) -> bool:
        g = self.all
        mine = g.groups[group]
        return value in g.results or any(g.escapes(u, mine) for u in g.users[value])

    def _try(self, producer: int, consumer: int) -> bool:
        """Merge two groups if the union is legal."""
        a, b = self.all.groups[producer], self.all.groups[consumer]
        pair = (producer, len(a.own), consumer, len(b.own))  # groups only grow: it names both
        if pair in self.refused or self.all.path_between(producer, consumer):
            return False
        union = self._union(a, b)
        if union is None or self._holds_up(a, union):
            self.refused.add(pair)
            return False
        self.all.merge(producer, consumer, union)
        return True

    def _union(self, a: Group, b: Group) -> Group | None:
        """The nodes of both in one group, or None where they do not form one nest."""
        g, contracts = self.all, a.contracts + b.contracts
        if len(a.own) + len(b.own) > self.max_nodes:
            return None
        if contracts > 1 or (contracts and a.folds + b.folds):
            return None
        if any(g.closed[k] for k in (*a.own, *b.own)):
            return None
        union = g.union(a, b)
        if self._views_itself(union):
            return None
        found = g.frame(union)
        large = found and g.spaces.rows_are_large(union.nodes, found.cross)
        return union if found and not large else None

    def _holds_up(self, producer: Group, union: Group) -> bool:
        """Whether others need single elements that the producer makes, and would have to wait for
        all that the union reads."""
        g, made = self.all, self.all.outputs_of(producer)
        if any(map(self._large, producer.own)) or not any(map(self._large, union.own)):
            return False
        return not g.results.issuperset(made) and not set(made).isdisjoint(g.outputs_of(union))

    def _large(self, k: int) -> bool:
        """Whether a node reads or makes more than single elements."""
        node = self.all.nodes[k]
        return any(v.type.size > 1 for v in (*node.inputs, *node.outputs))

    def _views_itself(self, group: Group) -> bool:
        """Whether the group reads a value of its own through a view, which must find it in
        memory."""
        return any(m in group.own for k in group.nodes for m in self.all.behind[k])
