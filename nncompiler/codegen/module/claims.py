"""LLVM text of `nn.claim`: which parts of a kernel a worker runs next.

Each worker has a line of the pool: which parts of its own are left, and how many kernels in parts
it has been to. Of P parts worker w of W owns those from P w / W to P (w + 1) / W. It takes half of
what is left of its own, from the front, again and again, then of the others', from the back: at
first each runs what it ran before and has in its cache, in the end nobody waits for a slower one.
All workers go to the same kernels in the same order, so a line that speaks of an earlier kernel
than the taker's belongs to a worker who has not come so far yet: all of its parts are left.
Where P is given as -P, the parts of each are taken in the opposite order: its own from the back.

    kernel 7 << 16 | first left << 8 | behind the last left        of the owner's parts, from 0
    kernels the owner has been to
"""

from __future__ import annotations

#: Bytes of a worker's line: one of the cache.
LINE = 64

DECLARATIONS = "declare hidden i64 @nn.claim(ptr, i64)\n"

HELPERS = """
; the parts to run, from | behind the last << 32, or -1 where none is left; `me` has the answer
; before, -1 at first
define hidden i64 @nn.claim(ptr %me, i64 %given) ATTRIBUTES {
entry:
  %backwards = icmp slt i64 %given, 0
  %negative = sub i64 0, %given
  %parts = select i1 %backwards, i64 %negative, i64 %given
  %workers.at = getelementptr i8, ptr %me, i64 8
  %pool.at = getelementptr i8, ptr %me, i64 16
  %last.at = getelementptr i8, ptr %me, i64 24
  %worker = load i64, ptr %me, align 8
  %workers = load i64, ptr %workers.at, align 8
  %pool = load ptr, ptr %pool.at, align 8
  %last = load i64, ptr %last.at, align 8
  %begins = icmp slt i64 %last, 0
  %alone = icmp eq i64 %workers, 1
  br i1 %alone, label %one, label %several
one:
  %all = shl i64 %parts, 32
  %whole = select i1 %begins, i64 %all, i64 -1
  store i64 %whole, ptr %last.at, align 8
  ret i64 %whole
several:
  %lines = getelementptr i8, ptr %pool, i64 LINES
  %line = getelementptr [LINE x i8], ptr %lines, i64 %worker
  %count.at = getelementptr i8, ptr %line, i64 8
  %before = load i64, ptr %count.at, align 8
  %one.more = zext i1 %begins to i64
  %kernel = add i64 %before, %one.more
  store i64 %kernel, ptr %count.at, align 8
  br label %owner
owner:
  %tried = phi i64 [ 0, %several ], [ %tried.next, %empty ]
  %round = add i64 %worker, %tried
  %over = icmp uge i64 %round, %workers
  %back = select i1 %over, i64 %workers, i64 0
  %who = sub i64 %round, %back
  %who.next = add i64 %who, 1
  %low.all = mul i64 %parts, %who
  %low = udiv i64 %low.all, %workers
  %high.all = mul i64 %parts, %who.next
  %high = udiv i64 %high.all, %workers
  %count = sub i64 %high, %low
  %word = getelementptr [LINE x i8], ptr %lines, i64 %who
  %first.seen = load atomic i64, ptr %word monotonic, align 8
  br label %look
look:
  %seen = phi i64 [ %first.seen, %owner ], [ %now, %take ]
  %of = lshr i64 %seen, 16
  %earlier = icmp ult i64 %of, %kernel
  %later = icmp ugt i64 %of, %kernel
  %bytes = lshr i64 %seen, 8
  %from.seen = and i64 %bytes, 255
  %to.seen = and i64 %seen, 255
  %from = select i1 %earlier, i64 0, i64 %from.seen
  %to = select i1 %earlier, i64 %count, i64 %to.seen
  %left = sub i64 %to, %from
  %gone = icmp eq i64 %left, 0
  %none = or i1 %later, %gone
  br i1 %none, label %empty, label %take
take:
  %left.more = add i64 %left, 1
  %half = lshr i64 %left.more, 1
  %own = icmp eq i64 %tried, 0
  %from.half = add i64 %from, %half
  %to.half = sub i64 %to, %half
  %begin = select i1 %own, i64 %from, i64 %to.half
  %end = select i1 %own, i64 %from.half, i64 %to
  %from.new = select i1 %own, i64 %end, i64 %from
  %to.new = select i1 %own, i64 %to, i64 %begin
  %named = shl i64 %kernel, 16
  %shifted = shl i64 %from.new, 8
  %both = or i64 %shifted, %to.new
  %new = or i64 %named, %both
  %pair = cmpxchg ptr %word, i64 %seen, i64 %new monotonic monotonic, align 8
  %now = extractvalue { i64, i1 } %pair, 0
  %mine = extractvalue { i64, i1 } %pair, 1
  br i1 %mine, label %done, label %look
empty:
  %tried.next = add i64 %tried, 1
  %again = icmp ult i64 %tried.next, %workers
  br i1 %again, label %owner, label %nothing
nothing:
  store i64 -1, ptr %last.at, align 8
  ret i64 -1
done:
  %from.low = add i64 %low, %begin
  %to.low = add i64 %low, %end
  %from.high = sub i64 %high, %end
  %to.high = sub i64 %high, %begin
  %begin.all = select i1 %backwards, i64 %from.high, i64 %from.low
  %end.all = select i1 %backwards, i64 %to.high, i64 %to.low
  %upper = shl i64 %end.all, 32
  %answer = or i64 %begin.all, %upper
  store i64 %answer, ptr %last.at, align 8
  ret i64 %answer
}
"""
