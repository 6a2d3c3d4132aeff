"""LLVM text of entry points: functions that check first, and the helpers they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from nncompiler.codegen.module import abi

HELPER_DECLARATIONS = """\
declare hidden void @nn.zero(ptr, i64)
declare hidden void @nn.copy(ptr, ptr, i64)
declare hidden void @nn.gather(ptr, ptr, ptr, i64, i64)
declare hidden i1 @nn.in_range(ptr, i64, i32)
"""

#: `nn.zero` takes aligned multiples of 64 bytes; `nn.copy` moves 64 bytes at a time, then words,
#: then bytes.
HELPERS = """
declare i64 @llvm.readcyclecounter()

define hidden void @nn.zero(ptr %to, i64 %bytes) ATTRIBUTES {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp ult i64 %i, %bytes
  br i1 %more, label %body, label %done
body:
  %p = getelementptr i8, ptr %to, i64 %i
  store <64 x i8> zeroinitializer, ptr %p, align 64
  %next = add i64 %i, 64
  br label %head
done:
  ret void
}

define hidden void @nn.copy(ptr noalias %to, ptr noalias %from, i64 %bytes) ATTRIBUTES {
entry:
  %wide = and i64 %bytes, -64
  %words = and i64 %bytes, -4
  br label %head64
head64:
  %i = phi i64 [ 0, %entry ], [ %i.next, %body64 ]
  %i.more = icmp ult i64 %i, %wide
  br i1 %i.more, label %body64, label %head4
body64:
  %i.from = getelementptr i8, ptr %from, i64 %i
  %i.to = getelementptr i8, ptr %to, i64 %i
  %i.value = load <64 x i8>, ptr %i.from, align 1
  store <64 x i8> %i.value, ptr %i.to, align 1
  %i.next = add i64 %i, 64
  br label %head64
head4:
  %j = phi i64 [ %wide, %head64 ], [ %j.next, %body4 ]
  %j.more = icmp ult i64 %j, %words
  br i1 %j.more, label %body4, label %head1
body4:
  %j.from = getelementptr i8, ptr %from, i64 %j
  %j.to = getelementptr i8, ptr %to, i64 %j
  %j.value = load i32, ptr %j.from, align 1
  store i32 %j.value, ptr %j.to, align 1
  %j.next = add i64 %j, 4
  br label %head4
head1:
  %k = phi i64 [ %words, %head4 ], [ %k.next, %body1 ]
  %k.more = icmp ult i64 %k, %bytes
  br i1 %k.more, label %body1, label %done
body1:
  %k.from = getelementptr i8, ptr %from, i64 %k
  %k.to = getelementptr i8, ptr %to, i64 %k
  %k.value = load i8, ptr %k.from, align 1
  store i8 %k.value, ptr %k.to, align 1
  %k.next = add i64 %k, 1
  br label %head1
done:
  ret void
}

define hidden void @nn.gather(ptr %to, ptr %from, ptr %order, i64 %rows, i64 %bytes) ATTRIBUTES {
entry:
  br label %head
head:
  %r = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp ult i64 %r, %rows
  br i1 %more, label %body, label %done
body:
  %slot = getelementptr i64, ptr %order, i64 %r
  %row = load i64, ptr %slot, align 8
  %from.offset = mul i64 %row, %bytes
  %to.offset = mul i64 %r, %bytes
  %source = getelementptr i8, ptr %from, i64 %from.offset
  %target = getelementptr i8, ptr %to, i64 %to.offset
  call void @nn.copy(ptr %target, ptr %source, i64 %bytes)
  %next = add i64 %r, 1
  br label %head
done:
  ret void
}

define hidden i1 @nn.in_range(ptr %values, i64 %count, i32 %extent) ATTRIBUTES {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %good
body:
  %p = getelementptr i32, ptr %values, i64 %i
  %value = load i32, ptr %p, align 4
  %inside = icmp ult i32 %value, %extent
  %next = add i64 %i, 1
  br i1 %inside, label %head, label %bad
good:
  ret i1 true
bad:
  ret i1 false
}
"""


def call_entry(result: str, function: str, pointers: Sequence[str]) -> str:
    return f"call {result} @{function}({', '.join(f'ptr {p}' for p in pointers)})"


class FunctionText:
    """A function that returns a code; each refusal returns early, the end returns 0."""

    def __init__(self, name: str, parameters: Sequence[str], linkage: str = "") -> None:
        self._head = f"define {linkage}i32 @{name}({', '.join(parameters)})"
        self._lines = ["entry:"]
        self.block = "entry"
        self._count = 0
        self._codes: list[int] = []
        self._offsets: dict[tuple[str, int], str] = {}

    def line(self, text: str) -> None:
        self._lines.append(f"  {text}")

    def assign(self, instruction: str) -> str:
        self._count += 1
        self.line(f"%v{self._count} = {instruction}")
        return f"%v{self._count}"

    def label(self, name: str) -> None:
        self._lines.append(f"{name}:")
        self.block = name

    def offset(self, pointer: str, bytes: int) -> str:
        """The address `bytes` behind `pointer`, reused until it is forgotten."""
        if not bytes:
            return pointer
        if (pointer, bytes) not in self._offsets:
            text = self.assign(f"getelementptr i8, ptr {pointer}, i64 {bytes}")
            self._offsets[pointer, bytes] = text
        return self._offsets[pointer, bytes]

    def forget(self) -> None:
        """Compute addresses anew: to keep many of them takes more code, for stores and loads."""
        self._offsets = {}

    @contextmanager
    def _scope(self) -> Iterator[None]:
        """Addresses that are computed inside stay there."""
        known = dict(self._offsets)
        yield
        self._offsets = known

    def require(self, pointers: Sequence[tuple[str, int]]) -> None:
        """Refuse pointers that are null or not aligned to so many bytes."""
        bad = "false"
        for pointer, alignment in pointers:
            tests = [f"icmp eq ptr {pointer}, null"]
            if alignment > 1:
                address = self.assign(f"ptrtoint ptr {pointer} to i64")
                low = self.assign(f"and i64 {address}, {alignment - 1}")
                tests.append(f"icmp ne i64 {low}, 0")
            for test in tests:
                bad = self.assign(f"or i1 {bad}, {self.assign(test)}")
        self.refuse(bad, abi.BAD_POINTER)

    def refuse(self, condition: str, code: int) -> None:
        """Return `code` where the condition holds."""
        self._count += 1
        go_on = f"go{self._count}"
        self.line(f"br i1 {condition}, label %code{code}, label %{go_on}")
        self._codes.append(code)
        self.label(go_on)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """What is written inside runs where the condition holds; its values stay inside."""
        self._count += 1
        n = self._count
        self.line(f"br i1 {condition}, label %then{n}, label %past{n}")
        self.label(f"then{n}")
        with self._scope():
            yield
        self.line(f"br label %past{n}")
        self.label(f"past{n}")

    @contextmanager
    def until_negative(self, instruction: str) -> Iterator[str]:
        """What is written inside runs again and again on what `instruction` gives, until that is
        negative."""
        self._count += 1
        n = self._count
        self.line(f"br label %ask{n}")
        self.label(f"ask{n}")
        self.line(f"%given{n} = {instruction}")
        self.line(f"%none{n} = icmp slt i64 %given{n}, 0")
        self.line(f"br i1 %none{n}, label %behind{n}, label %do{n}")
        self.label(f"do{n}")
        with self._scope():
            yield f"%given{n}"
        self.line(f"br label %ask{n}")
        self.label(f"behind{n}")

    def loop(self, extent: int, reverse: bool) -> AbstractContextManager[str]:
        """What is written inside runs `extent` (at least 1) times; gives the counter."""
        first, last, step = (extent - 1, 0, -1) if reverse else (0, extent - 1, 1)
        return self._counted(str(first), step, ("%t", str(last)))

    def span(self, first: str, behind: str) -> AbstractContextManager[str]:
        """What is written inside runs from `first` to before `behind`, at least once; gives the
        counter."""
        return self._counted(first, 1, ("%next", behind))

    @contextmanager
    def _counted(self, first: str, step: int, end: tuple[str, str]) -> Iterator[str]:
        """Rounds until the values of `end` are equal: `%t` is the counter, `%next` the one after
        it."""
        self._count += 1
        n, before, head = self._count, self.block, len(self._lines) + 2
        self.line(f"br label %loop{n}")
        self.label(f"loop{n}")
        self.line("")
        with self._scope():
            yield f"%t{n}"
        self.line(f"%next{n} = add i64 %t{n}, {step}")
        counter = f"%t{n} = phi i64 [ {first}, %{before} ], [ %next{n}, %{self.block} ]"
        self._lines[head] = f"  {counter}"
        value, limit = end
        self.line(f"%done{n} = icmp eq i64 {value}{n}, {limit}")
        self.line(f"br i1 %done{n}, label %behind{n}, label %loop{n}")
        self.label(f"behind{n}")

    def finish(self, attributes: str) -> str:
        self.line(f"ret i32 {abi.OK}")
        for code in sorted(set(self._codes)):
            self._lines += [f"code{code}:", f"  ret i32 {code}"]
        return "\n".join([f"{self._head} {attributes} {{", *self._lines, "}"])
