# SPDX-License-Identifier: MIT
"""MessagePack, as much of it as eqd speaks: nil, bool, integers, float 64, str, bin, array, map. No ext types.

decode() takes the first value of some bytes and says where it ends; IndexError or struct.error: bytes are missing.
str that is no UTF-8 comes out with surrogate escapes.
"""

import struct


def encode(value):
    out = bytearray()
    _encode(value, out)
    return bytes(out)


def _head(out, n, fix, fix_max, codes):
    """The header of a str, bin, array or map of n elements: a fix code, or (code, format) by size."""
    if fix is not None and n <= fix_max:
        out.append(fix | n)
        return
    for limit, code, form in codes:
        if n < limit:
            out.append(code)
            out += struct.pack(form, n)
            return
    raise ValueError("too long")


def _int(out, n):
    if 0 <= n < 128 or -32 <= n < 0:
        out += struct.pack("b" if n < 0 else "B", n)
        return
    for code, form, low, high in ((0xCC, ">B", 0, 1 << 8), (0xCD, ">H", 0, 1 << 16), (0xCE, ">I", 0, 1 << 32),
                                  (0xCF, ">Q", 0, 1 << 64), (0xD0, ">b", -(1 << 7), 0), (0xD1, ">h", -(1 << 15), 0),
                                  (0xD2, ">i", -(1 << 31), 0), (0xD3, ">q", -(1 << 63), 0)):
        if low <= n < high:
            out.append(code)
            out += struct.pack(form, n)
            return
    raise ValueError(n)


def _encode(value, out):
    if value is None:
        out.append(0xC0)
    elif isinstance(value, bool):
        out.append(0xC3 if value else 0xC2)
    elif isinstance(value, int):
        _int(out, value)
    elif isinstance(value, float):
        out += b"\xcb" + struct.pack(">d", value)
    elif isinstance(value, str):
        raw = value.encode("utf-8", "surrogateescape")
        _head(out, len(raw), 0xA0, 31, ((1 << 8, 0xD9, ">B"), (1 << 16, 0xDA, ">H"), (1 << 32, 0xDB, ">I")))
        out += raw
    elif isinstance(value, (bytes, bytearray)):
        _head(out, len(value), None, 0, ((1 << 8, 0xC4, ">B"), (1 << 16, 0xC5, ">H"), (1 << 32, 0xC6, ">I")))
        out += value
    elif isinstance(value, (list, tuple)):
        _head(out, len(value), 0x90, 15, ((1 << 16, 0xDC, ">H"), (1 << 32, 0xDD, ">I")))
        for item in value:
            _encode(item, out)
    elif isinstance(value, dict):
        _head(out, len(value), 0x80, 15, ((1 << 16, 0xDE, ">H"), (1 << 32, 0xDF, ">I")))
        for key, item in value.items():
            _encode(key, out)
            _encode(item, out)
    else:
        raise TypeError(type(value))


NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i",
           0xD3: ">q"}
SIZED = {0xC4: (bytes, ">B"), 0xC5: (bytes, ">H"), 0xC6: (bytes, ">I"), 0xD9: (str, ">B"), 0xDA: (str, ">H"),
         0xDB: (str, ">I"), 0xDC: (list, ">H"), 0xDD: (list, ">I"), 0xDE: (dict, ">H"), 0xDF: (dict, ">I")}


def decode(buf, at=0):
    """(value, position after it)"""
    code = buf[at]
    at += 1
    if code < 0x80 or code >= 0xE0:
        return (code if code < 0x80 else code - 256), at
    if code in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[code], at
    if code in NUMBERS:
        form = NUMBERS[code]
        return struct.unpack_from(form, buf, at)[0], at + struct.calcsize(form)
    if code < 0x90:
        return _body(buf, at, dict, code & 15)
    if code < 0xA0:
        return _body(buf, at, list, code & 15)
    if code < 0xC0:
        return _body(buf, at, str, code & 31)
    if code not in SIZED:
        raise ValueError(f"no value starts with byte {code:#x}")
    kind, form = SIZED[code]
    return _body(buf, at + struct.calcsize(form), kind, struct.unpack_from(form, buf, at)[0])


def _body(buf, at, kind, n):
    if kind in (str, bytes):
        if at + n > len(buf):
            raise IndexError
        raw = bytes(buf[at:at + n])
        return (raw if kind is bytes else raw.decode("utf-8", "surrogateescape")), at + n
    items = []
    for _ in range(n * (2 if kind is dict else 1)):
        item, at = decode(buf, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2])) if kind is dict else items), at
