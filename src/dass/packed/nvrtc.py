"""CUDA source to a kernel that can be launched, by the NVRTC that comes with PyTorch.

No compiler and no CUDA toolkit is needed at the user's. Kernels are compiled once a process for
each set of definitions and launched on the current stream, so that a CUDA graph captures them.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from importlib.resources import files

import torch
from torch import Tensor

from dass.errors import DeviceError

Launch = Callable[..., None]
Argument = Tensor | int | ctypes.c_uint64

MOST_SHARED_MEMORY = 8
"""The driver's number of the attribute, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES."""

EARLY_START = 6
"""CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: start before the last kernel ended."""


class _Attribute(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint64), ("value", ctypes.c_uint32 * 16))


class _Configuration(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("memory", ctypes.c_uint),
        ("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )  # fmt: skip


@functools.cache
def kernel(
    source: str, name: str, definitions: tuple[tuple[str, int], ...], memory: int, device: int
) -> Launch:
    """The kernel ``name`` of a file beside this one, compiled for a device.

    Args:
        source: the file's name.
        name: an ``extern "C"`` function.
        definitions: macro -> value.
        memory: bytes of shared memory that launches may take, beside what the kernel declares.
        device: its index.

    Returns:
        ``launch(blocks, threads, memory, *arguments)`` with bytes of shared memory; tensors are
        passed as pointers, ints as ints. From compute capability 9.0 on the kernel starts while the
        one before it in the stream still runs, and must wait for it itself.

    Raises:
        DeviceError: NVRTC does not compile it, or the driver does not take it.
    """
    folder = files(__package__)
    parts = ("common.cuh", "decode.cuh", "block.cuh", source)
    text = "".join(folder.joinpath(part).read_text() for part in parts)
    major, minor = torch.cuda.get_device_capability(device)
    own = "a" if (major, minor) == (9, 0) else ""  # with the instructions that Hopper alone has
    options = [f"--gpu-architecture=sm_{major}{minor}{own}", "--std=c++17"]
    options += [f"-D{macro}={value}" for macro, value in definitions]
    with torch.cuda.device(device):
        torch.cuda.current_stream().synchronize()  # a context, before the driver is called
        function = _load(_compile(text, source, options), name)
        _check(_driver().cuFuncSetAttribute(function, MOST_SHARED_MEMORY, memory), name)

    early = (_Attribute * 1)(_Attribute(EARLY_START, (ctypes.c_uint32 * 16)(1)))
    attributes = int(major >= 9)

    def launch(blocks: int, threads: int, memory: int, *arguments: Argument) -> None:
        held = [
            ctypes.c_void_p(one.data_ptr()) if isinstance(one, Tensor)
            else ctypes.c_int(one) if isinstance(one, int) else one
            for one in arguments
        ]  # fmt: skip
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(one) for one in held))
        configuration = _Configuration(
            (blocks, 1, 1), (threads, 1, 1), memory,
            torch.cuda.current_stream(device).cuda_stream, early, attributes,
        )  # fmt: skip
        with torch.cuda.device(device):  # a model may lie on several GPUs
            launched = _driver().cuLaunchKernelEx(
                ctypes.byref(configuration), function, pointers, None
            )
        _check(launched, name)

    return launch


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


@functools.cache
def _compiler() -> ctypes.CDLL:
    version = (torch.version.cuda or "").split(".")[0]
    for name in (f"libnvrtc.so.{version}", "libnvrtc.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise DeviceError(
        "NVRTC, which compiles the packed kernels, cannot be loaded; install PyTorch with CUDA"
    )


def _compile(text: str, name: str, options: list[str]) -> bytes:
    """Machine code of a CUDA source text."""
    nvrtc, program = _compiler(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None)
    try:
        arguments = (ctypes.c_char_p * len(options))(*(one.encode() for one in options))
        failed = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
        if failed:
            log = _text(nvrtc, "ProgramLog", program).decode(errors="replace")
            raise DeviceError(f"NVRTC does not compile {name}: {' '.join(log.split())[:500]}")
        return _text(nvrtc, "CUBIN", program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def _load(code: bytes, name: str) -> ctypes.c_void_p:
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _check(_driver().cuModuleLoadData(ctypes.byref(module), code), name)
    _check(_driver().cuModuleGetFunction(ctypes.byref(function), module, name.encode()), name)
    return function


def _check(result: int, name: str) -> None:
    if result:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(result, ctypes.byref(text))
        what = (text.value or b"unknown error").decode()
        raise DeviceError(f"the packed kernel {name!r} cannot run on this GPU ({what})")
