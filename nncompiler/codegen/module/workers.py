"""LLVM text of the worker pool: how the threads that a caller brings wait for each other.

The pool is a block of the caller's memory. Its owner prepares it (`NAME_pool`), lets every further
thread call `NAME_worker`, and ends them with `NAME_pool_stop`. A parallel entry point takes the
pool (`nn.enter`), or runs alone where another call has it; it publishes its job by a new ticket
(`nn.start`), runs its own part as worker 0, and gives the pool back (`nn.leave`). Workers meet at
a counter that the last one to arrive resets (`nn.meet`), and take parts of kernels (`claims`).

Who waits looks at the word for some 7 µs, then lets other threads run between looks, and after
about a millisecond sleeps in the kernel (futex) until it is woken; who changes the word makes that
system call only if somebody sleeps.
"""

from __future__ import annotations

from nncompiler.codegen.module import abi, claims

#: Offsets in the pool, a cache line for each word that somebody waits for: number of threads,
#: whether a call has the pool; ticket, stop; sleepers; arrived; round; sleepers; job, arguments;
#: a line for each worker.
_OFFSETS = {
    "THREADS": 0, "BUSY": 8, "TICKET": 64, "STOP": 68, "IDLE": 128, "ARRIVED": 192, "ROUND": 256,
    "ASLEEP": 320, "JOB": 384, "GIVEN": 392,
    "LINES": 448,
}  # fmt: skip
POOL_BYTES = _OFFSETS["LINES"] + claims.LINE * abi.MOST_THREADS

#: Of a function that every worker runs: its number and that of all.
WORKER, WORKERS = "%worker", "%workers"
#: What a worker tells `nn.claim` and `nn.meet` of itself, words of 8 bytes: its number, that of
#: all, the pool, and the last answer of `nn.claim`, -1 at first.
SELF_BYTES = 32

#: Clock ticks until a waiting thread lets others run, and until it sleeps.
_SPIN, _PARK = 20_000, 2_000_000

DECLARATIONS = claims.DECLARATIONS + """\
declare hidden i64 @nn.enter(ptr)
declare hidden void @nn.start(ptr, ptr, ptr)
declare hidden void @nn.leave(ptr)
declare hidden void @nn.meet(ptr)
declare hidden void @nn.wait(ptr, i32, ptr)
declare hidden void @nn.wake(ptr, ptr)
"""

_SYSCALL = (
    'asm sideeffect "syscall", '
    '"={ax},{ax},{di},{si},{dx},{r10},~{rcx},~{r11},~{memory},~{dirflag},~{fpsr},~{flags}"'
)

_HELPERS = """
declare void @llvm.x86.sse2.pause()

; until the word is no longer what was seen
define hidden void @nn.wait(ptr %word, i32 %seen, ptr %sleepers) ATTRIBUTES {
entry:
  %start = call i64 @llvm.readcyclecounter()
  br label %spin
spin:
  %a = load atomic i32, ptr %word acquire, align 4
  %a.new = icmp ne i32 %a, %seen
  br i1 %a.new, label %done, label %pause
pause:
  call void @llvm.x86.sse2.pause()
  %a.now = call i64 @llvm.readcyclecounter()
  %a.passed = sub i64 %a.now, %start
  %a.soon = icmp ult i64 %a.passed, SPIN
  br i1 %a.soon, label %spin, label %yield
yield:
  %yielded = call i64 SYSCALL(i64 24, i64 0, i64 0, i64 0, i64 0)
  %b = load atomic i32, ptr %word acquire, align 4
  %b.new = icmp ne i32 %b, %seen
  br i1 %b.new, label %done, label %tired
tired:
  %b.now = call i64 @llvm.readcyclecounter()
  %b.passed = sub i64 %b.now, %start
  %b.soon = icmp ult i64 %b.passed, PARK
  br i1 %b.soon, label %yield, label %park
park:
  %before = atomicrmw add ptr %sleepers, i32 1 seq_cst, align 4
  br label %sleep
sleep:
  %c = load atomic i32, ptr %word seq_cst, align 4
  %c.new = icmp ne i32 %c, %seen
  br i1 %c.new, label %awake, label %futex
futex:
  %address = ptrtoint ptr %word to i64
  %value = zext i32 %seen to i64
  %slept = call i64 SYSCALL(i64 202, i64 %address, i64 128, i64 %value, i64 0)
  br label %sleep
awake:
  %behind = atomicrmw sub ptr %sleepers, i32 1 seq_cst, align 4
  br label %done
done:
  ret void
}

; the word has changed (with a full barrier)
define hidden void @nn.wake(ptr %word, ptr %sleepers) ATTRIBUTES {
entry:
  %count = load atomic i32, ptr %sleepers seq_cst, align 4
  %none = icmp eq i32 %count, 0
  br i1 %none, label %done, label %wake
wake:
  %address = ptrtoint ptr %word to i64
  %woken = call i64 SYSCALL(i64 202, i64 %address, i64 129, i64 2147483647, i64 0)
  br label %done
done:
  ret void
}

define hidden void @nn.meet(ptr %me) ATTRIBUTES {
entry:
  %workers.at = getelementptr i8, ptr %me, i64 8
  %pool.at = getelementptr i8, ptr %me, i64 16
  %workers = load i64, ptr %workers.at, align 8
  %pool = load ptr, ptr %pool.at, align 8
  %alone = icmp eq i64 %workers, 1
  br i1 %alone, label %done, label %arrive
arrive:
  %arrived = getelementptr i8, ptr %pool, i64 ARRIVED
  %round = getelementptr i8, ptr %pool, i64 ROUND
  %sleepers = getelementptr i8, ptr %pool, i64 ASLEEP
  %seen = load atomic i32, ptr %round acquire, align 4
  %before = atomicrmw add ptr %arrived, i32 1 seq_cst, align 4
  %count = add i32 %before, 1
  %all = trunc i64 %workers to i32
  %last = icmp eq i32 %count, %all
  br i1 %last, label %open, label %wait
open:
  store atomic i32 0, ptr %arrived monotonic, align 4
  %ended = atomicrmw add ptr %round, i32 1 seq_cst, align 4
  call void @nn.wake(ptr %round, ptr %sleepers)
  br label %done
wait:
  call void @nn.wait(ptr %round, i32 %seen, ptr %sleepers)
  br label %done
done:
  ret void
}

; the number of threads of the pool, which is then taken; 1 where it cannot be
define hidden i64 @nn.enter(ptr %pool) ATTRIBUTES {
entry:
  %threads = load i64, ptr %pool, align 8
  %alone = icmp ule i64 %threads, 1
  br i1 %alone, label %one, label %take
take:
  %busy = getelementptr i8, ptr %pool, i64 BUSY
  %before = atomicrmw xchg ptr %busy, i32 1 seq_cst, align 4
  %taken = icmp ne i32 %before, 0
  br i1 %taken, label %one, label %all
one:
  ret i64 1
all:
  ret i64 %threads
}

define hidden void @nn.start(ptr %pool, ptr %job, ptr %given) ATTRIBUTES {
entry:
  %job.at = getelementptr i8, ptr %pool, i64 JOB
  %given.at = getelementptr i8, ptr %pool, i64 GIVEN
  %ticket = getelementptr i8, ptr %pool, i64 TICKET
  %idle = getelementptr i8, ptr %pool, i64 IDLE
  store ptr %job, ptr %job.at, align 8
  store ptr %given, ptr %given.at, align 8
  %before = atomicrmw add ptr %ticket, i32 1 seq_cst, align 4
  call void @nn.wake(ptr %ticket, ptr %idle)
  ret void
}

define hidden void @nn.leave(ptr %pool) ATTRIBUTES {
entry:
  %busy = getelementptr i8, ptr %pool, i64 BUSY
  store atomic i32 0, ptr %busy release, align 4
  ret void
}
"""

_FUNCTIONS = """
define i64 @NAME_pool_bytes() ATTRIBUTES {
  ret i64 POOL_BYTES
}

define i32 @NAME_pool(ptr %pool, i64 %threads) ATTRIBUTES {
entry:
  %address = ptrtoint ptr %pool to i64
  %low = and i64 %address, 63
  %crooked = icmp ne i64 %low, 0
  %null = icmp eq ptr %pool, null
  %bad = or i1 %crooked, %null
  br i1 %bad, label %pointer, label %counted
counted:
  %less = sub i64 %threads, 1
  %good = icmp ult i64 %less, MOST
  br i1 %good, label %make, label %number
make:
  call void @nn.zero(ptr %pool, i64 POOL_BYTES)
  store i64 %threads, ptr %pool, align 8
  ret i32 0
pointer:
  ret i32 BAD_POINTER
number:
  ret i32 BAD_THREADS
}

define i32 @NAME_pool_stop(ptr %pool) ATTRIBUTES {
entry:
  %stop = getelementptr i8, ptr %pool, i64 STOP
  %ticket = getelementptr i8, ptr %pool, i64 TICKET
  %idle = getelementptr i8, ptr %pool, i64 IDLE
  store atomic i32 1, ptr %stop seq_cst, align 4
  %before = atomicrmw add ptr %ticket, i32 1 seq_cst, align 4
  call void @nn.wake(ptr %ticket, ptr %idle)
  ret i32 0
}

define i32 @NAME_worker(ptr %pool, i64 %id) ATTRIBUTES {
entry:
  %threads = load i64, ptr %pool, align 8
  %less = sub i64 %id, 1
  %others = sub i64 %threads, 1
  %good = icmp ult i64 %less, %others
  br i1 %good, label %begin, label %number
begin:
  %ticket = getelementptr i8, ptr %pool, i64 TICKET
  %idle = getelementptr i8, ptr %pool, i64 IDLE
  %stop = getelementptr i8, ptr %pool, i64 STOP
  %job.at = getelementptr i8, ptr %pool, i64 JOB
  %given.at = getelementptr i8, ptr %pool, i64 GIVEN
  br label %next
next:
  %seen = phi i32 [ 0, %begin ], [ %now, %work ]
  call void @nn.wait(ptr %ticket, i32 %seen, ptr %idle)
  %now = add i32 %seen, 1
  %stopped = load atomic i32, ptr %stop seq_cst, align 4
  %more = icmp eq i32 %stopped, 0
  br i1 %more, label %work, label %done
work:
  %job = load ptr, ptr %job.at, align 8
  %given = load ptr, ptr %given.at, align 8
  call void %job(ptr %pool, i64 %id, i64 %threads, ptr %given)
  br label %next
done:
  ret i32 0
number:
  ret i32 BAD_THREADS
}
"""


def helpers_text(attributes: str) -> str:
    """What all models share."""
    return _filled(_HELPERS + claims.HELPERS, attributes)


def functions_text(name: str, attributes: str) -> str:
    """The exported functions of the model `name`."""
    return _filled(_FUNCTIONS, attributes).replace("NAME", name)


def _filled(text: str, attributes: str) -> str:
    values = {
        "POOL_BYTES": POOL_BYTES, "BAD_POINTER": abi.BAD_POINTER, "BAD_THREADS": abi.BAD_THREADS,
        "MOST": abi.MOST_THREADS, "SPIN": _SPIN, "PARK": _PARK, "SYSCALL": _SYSCALL, **_OFFSETS,
        "LINE": claims.LINE,
        "ATTRIBUTES": attributes,
    }  # fmt: skip
    for key, value in values.items():
        text = text.replace(key, str(value))
    return text
