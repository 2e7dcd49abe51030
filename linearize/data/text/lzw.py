"""What Unix's ``compress`` has packed, which no module of Python's reads."""

from linearize.data.records import DataError

_CLEAR, _NARROW, _WIDE = 256, 9, 16


def unpacked(packed: bytes) -> bytes:
    """The bytes that codes of 9 to 16 bits stand for.

    Args:
        packed: a ``.Z`` file in block mode without the three bytes that it begins with.

    Raises:
        DataError: a code that nothing is known of.

    >>> unpacked(bytes([0x61, 0xC4, 0x04, 0x04]))
    b'abab'
    """
    start = [bytes([n]) for n in range(256)] + [b""]
    known, found, last = start.copy(), [], b""
    width, position, group = _NARROW, 0, 0
    while position + width <= 8 * len(packed):
        byte, shift = divmod(position, 8)
        code = int.from_bytes(packed[byte : byte + 4], "little") >> shift & ((1 << width) - 1)
        position += width
        clear = code == _CLEAR
        if clear:
            known, last = start.copy(), b""
        elif code < len(known):
            found.append(known[code])
        elif code == len(known) and last:
            found.append(last + last[:1])
        else:
            raise DataError(f"no whole file of compress: code {code} at bit {position - width}")
        if not clear:
            if last and len(known) < 1 << _WIDE:
                known.append(last + found[-1][:1])
            last = found[-1]
        if clear or (len(known) == 1 << width and width < _WIDE):
            # Codes come in groups of eight of one width, of which the last is filled up.
            position += -(position - group) % (8 * width)
            width, group = (_NARROW if clear else width + 1), position
    return b"".join(found)
