"""

Tests of the processor's abilities, and that BLAS computes in one thread.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.linalg  # noqa: F401  # a BLAS beside that of NumPy
import threadpoolctl

from services.common.server.resources import computes_bfloat16, cpu_flags

ARENAS = """
import ctypes, sys, threading
from services.common.server.resources import tune_allocator
if sys.argv[1] == "limited":
    tune_allocator()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
meeting = threading.Barrier(8)
def work():
    libc.malloc(ctypes.c_size_t(1000))
    meeting.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""
"""A program that allocates in eight threads at once and prints what glibc says of its arenas."""
UNUSED = """
import sys
from services.common.server.resources import skip_last_collection
class Node:
    def __del__(self):
        print("searched")
node = Node()
node.itself = node
del node
if sys.argv[1] == "skipped":
    skip_last_collection()
"""
"""A program that leaves an object that refers to itself."""
FREED = """
import ctypes, sys
from services.common.server.resources import give_back_freed_memory, resident_bytes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
pieces = [libc.malloc(50_000) for _ in range(4000)]
for piece in pieces:
    ctypes.memset(piece, 1, 50_000)
for number, piece in enumerate(pieces):
    if number % 100:
        libc.free(ctypes.c_void_p(piece))
before = resident_bytes()
if sys.argv[1] == "given back":
    give_back_freed_memory()
print(before - resident_bytes())
"""
"""A program that fills 200 MB with small pieces, frees all but every hundredth, and prints how much memory it has less then."""
KEPT = """
import ctypes, sys
from services.common.server.resources import resident_bytes, tune_allocator
if sys.argv[1] == "tuned":
    tune_allocator()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
picture = libc.malloc(20_000_000)
ctypes.memset(picture, 1, 20_000_000)
before = resident_bytes()
libc.free(ctypes.c_void_p(picture))
print(before - resident_bytes())
"""
"""A program that frees a picture of 20 MB, and prints how much memory it has less then."""


def printed(program: str, *arguments: str, **variables: str) -> str:
    """Run a program without the settings of the allocator and of BLAS that the tests run with, and return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "OPENBLAS", "OMP"))}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=inherited | variables, capture_output=True, text=True, timeout=300, check=True).stdout


needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(),
    reason="needs Linux on x86_64, which names instruction sets in /proc/cpuinfo",
)
def test_every_x86_64_processor_has_sse2() -> None:
    assert "sse2" in cpu_flags()


@pytest.mark.parametrize(
    ("flags", "computes"),
    [
        ("avx2 fma avx512_bf16", True),
        ("avx2 fma amx_bf16", True),
        ("", False),
        ("avx2 fma", False),
        ("avx2 fma avx512f avx512bw avx512vl avx512_vnni", False),
    ],
)
def test_bfloat16_where_supported(flags: str, computes: bool) -> None:
    """A processor with instructions for bfloat16 computes in bfloat16; all others would emulate them."""
    assert computes_bfloat16(frozenset(flags.split())) is computes


def test_tests_use_one_thread() -> None:
    """The tests compute in one thread with the kernel that is named."""
    libraries = [found for found in threadpoolctl.threadpool_info() if found["internal_api"] == "openblas"]
    assert libraries
    assert {found["num_threads"] for found in libraries} == {1}
    if os.environ.get("OPENBLAS_CORETYPE") == "Haswell":
        assert {found["architecture"] for found in libraries} == {"Haswell"}


def test_numpy_loaded_first_one_thread() -> None:
    """A program that loaded NumPy before dubstage computes in one thread too."""
    late = "import numpy, services, threadpoolctl; print({found['num_threads'] for found in threadpoolctl.threadpool_info()})"
    assert printed(late) == "{1}\n"


def _arenas(how: str, **variables: str) -> int:
    return printed(ARENAS, how, **variables).count("<heap nr=")


@needs_glibc
def test_threads_share_two_arenas() -> None:
    assert _arenas("limited") == 2
    assert _arenas("free", MALLOC_ARENA_MAX="8") > 2


@needs_glibc
def test_the_user_may_choose_another_number_of_arenas() -> None:
    assert _arenas("limited", MALLOC_ARENA_MAX="5") == 5


@needs_glibc
@pytest.mark.parametrize(("how", "less"), [("tuned", False), ("free", True)])
def test_memory_of_a_picture_is_kept_for_the_next(how: str, less: bool) -> None:
    assert (int(printed(KEPT, how)) > 10_000_000) is less


@pytest.mark.parametrize(("how", "found"), [("skipped", ""), ("searched", "searched\n")])
def test_exit_skips_garbage_search(how: str, found: str) -> None:
    """A process that ends need not search for unused objects."""
    assert printed(UNUSED, how) == found


@needs_glibc
@pytest.mark.parametrize(("how", "given_back"), [("given back", True), ("kept", False)])
def test_fragmented_memory_is_returned(how: str, given_back: bool) -> None:
    """Memory between pieces that are in use is given back."""
    assert (int(printed(FREED, how)) > 150_000_000) is given_back
