"""Reed-Solomon (255, 223) over GF(2**8), which corrects up to 16 wrong symbols of a code word.

The code of CCSDS 131.0-B-3 §4.3: field polynomial x^8 + x^7 + x^2 + x + 1 (0x187), generator polynomial with the roots
α^(11 j) for j = 112 to 143, systematic, first symbol first. A shorter word is a full one whose leading data symbols are
zeros that are not sent (*virtual fill*, §4.3.7). Interleaving (§4.3.5) deals the symbols of a block to `depth` words in
turn, so that a burst is shared out among them.

Symbols have two representations. The *conventional* one writes a symbol in powers of α. The *dual basis* of the
standard (§4.3.9) is another basis of the same field: a fixed linear map of each byte, `TO_DUAL_BASIS`. A word of one is
a word of the other after that map, symbol by symbol.

Encoding is linear, so the parity of a block is the exclusive or of one table row of 32 bytes for each data symbol. The
rows are gathered at once and folded in half until one is left; a word is clean if its parity, computed anew, is what
arrived. Only otherwise is there work:

1. The difference of the two parities has the same 32 syndromes as the whole word, so they come from a small table.
2. The key equation is solved by the reformulated inversionless Berlekamp-Massey algorithm (Sarwate and Shanbhag, IEEE
   Trans. VLSI Syst. 9(5), 2001): 32 steps that only scale polynomials and add them, here one `bytes.translate` and one
   exclusive or of integers each. It gives the error locator and the upper half of the error evaluator.
3. Chien's search evaluates the locator at all 255 places in one sum of 17 table rows; so do the two polynomials of
   Forney's formula.
4. The corrected word must be a code word, else it is refused.

More than 16 wrong symbols are nearly always refused (the rest is about one in 16! = 2e13); a CRC above must catch the
rest.
"""

from functools import cache, lru_cache, reduce
from operator import xor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flightsw.errors import CodingError

WORD_BYTES: Final = 255
DATA_BYTES: Final = 223
PARITY_BYTES: Final = 32
ERRORS_MAX: Final = 16  # symbols of a word that can be corrected: half of the parity, as for every such code

_FIELD_POLYNOMIAL: Final = 0x187
_FIRST_ROOT: Final = 112
_ROOT_STEP: Final = 11
_LOCATOR_BYTES: Final = ERRORS_MAX + 1


def _powers() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Powers of α, three times round so that sums and differences of logarithms need no remainder; and logarithms."""
    power, powers, logarithms = 1, [0] * WORD_BYTES, [0] * 256
    for exponent in range(WORD_BYTES):
        powers[exponent], logarithms[power] = power, exponent
        power <<= 1
        if power & 0x100:
            power ^= _FIELD_POLYNOMIAL
    return tuple(powers), tuple(logarithms)


_POWER, _LOGARITHM = _powers()


def _linear(images: tuple[int, ...]) -> bytes:
    """The table of a linear map of bytes from the images of 0x80, 0x40, ..., 0x01."""
    return bytes(reduce(xor, (images[7 - bit] for bit in range(8) if value >> bit & 1), 0) for value in range(256))


TO_DUAL_BASIS: Final = _linear((0x8D, 0xEF, 0xEC, 0x86, 0xFA, 0x99, 0xAF, 0x7B))
"""Conventional symbol -> symbol in the dual basis. Source: CCSDS 131.0-B-2 §4.3.9, the first matrix, row by row."""
TO_CONVENTIONAL: Final = _linear((0xC5, 0x42, 0x2E, 0xFD, 0xF0, 0x79, 0xAC, 0xCC))
"""Symbol in the dual basis -> conventional symbol. Source: CCSDS 131.0-B-2 §4.3.9, the second matrix."""


class _Field:
    """Tables of the field and of the code, in the conventional representation; about 2 MB."""

    def __init__(self) -> None:
        powers, logs = np.array(_POWER, np.uint8), np.array(_LOGARITHM)
        self.products: NDArray[np.uint8] = powers[(logs[:, None] + logs) % WORD_BYTES]
        """(256, 256): the product of two symbols."""
        self.products[0, :] = self.products[:, 0] = 0
        self.times: Final = [row.tobytes() for row in self.products]
        """Symbol -> the table that multiplies each byte by it."""
        degrees = np.arange(PARITY_BYTES - 1, -1, -1)[:, None] * (_FIRST_ROOT + np.arange(PARITY_BYTES))
        self.syndromes: Final = [self._rows(powers[_ROOT_STEP * line % WORD_BYTES]) for line in degrees]
        """Parity symbol, value -> its share of all syndromes, least significant byte first."""
        places = -_ROOT_STEP * np.arange(WORD_BYTES)
        self.values: Final = [self._rows(powers[places * degree % WORD_BYTES]) for degree in range(_LOCATOR_BYTES)]
        """Degree, coefficient -> the term's values at the inverses of all 255 places, the last symbol of the word in
        the least significant byte."""

    def _rows(self, line: NDArray[np.uint8]) -> list[int]:
        return [int.from_bytes(row.tobytes(), "little") for row in self.products[:, line]]

    def parity_rows(self) -> NDArray[np.uint8]:
        """(223, 256, 32): the parity that a value at a data symbol gives."""
        generator = [1]  # highest degree first
        for root in range(_FIRST_ROOT, _FIRST_ROOT + PARITY_BYTES):
            scaled = bytes(generator).translate(self.times[_POWER[_ROOT_STEP * root % WORD_BYTES]])
            generator = [a ^ b for a, b in zip([*generator, 0], [0, *scaled], strict=True)]
        tail = bytes(generator[1:])
        remainders, remainder = [tail], tail  # of x^32, x^33, ... by the generator
        for _ in range(DATA_BYTES - 1):
            carried = tail.translate(self.times[remainder[0]])
            remainder = bytes(a ^ b for a, b in zip(remainder[1:] + b"\0", carried, strict=True))
            remainders.append(remainder)
        units = np.frombuffer(b"".join(reversed(remainders)), np.uint8).reshape(DATA_BYTES, PARITY_BYTES)
        return np.ascontiguousarray(self.products[:, units].transpose(1, 0, 2))


@cache
def _field() -> _Field:
    """Made when first needed: a node without such a link pays nothing."""
    return _Field()


@lru_cache(maxsize=DATA_BYTES)
def _offsets(symbols_count: int) -> NDArray[np.intp]:
    """(n, 1, 1): where the table rows of the data symbols of a word begin, for words with that many of them."""
    return (np.arange(DATA_BYTES - symbols_count, DATA_BYTES, dtype=np.intp) * 256)[:, None, None]


class ReedSolomon:
    """Encoder and decoder.

    Args:
        dual_basis: symbols are in the dual basis, as CCSDS asks for on the air; conventional otherwise.
    """

    def __init__(self, *, dual_basis: bool = False) -> None:
        self._field = _field()
        self._to_conventional, self._from_conventional = None, None
        rows = self._field.parity_rows()
        if dual_basis:
            self._to_conventional, self._from_conventional = TO_CONVENTIONAL, TO_DUAL_BASIS
            rows = np.frombuffer(rows[:, list(TO_CONVENTIONAL)].tobytes().translate(TO_DUAL_BASIS), np.uint8)
        self._rows: NDArray[np.uint64] = rows.reshape(DATA_BYTES * 256, PARITY_BYTES).view(np.uint64)

    def parity(self, data: bytes, depth: int = 1, blocks_count: int = 1) -> bytes:
        """The parity of blocks of equal length, block after block, interleaved as the data are.

        Args:
            data: the data of all blocks: 1 to 223 symbols for each word; symbol i of a block is in word i mod `depth`.
            depth: interleaved words of a block.
            blocks_count: how many blocks.
        """
        count = len(data) // (depth * blocks_count)
        assert len(data) == count * depth * blocks_count, "all blocks are equally long, and whole"
        assert 0 < count <= DATA_BYTES, "a code word has 1 to 223 data symbols"
        symbols = np.frombuffer(data, np.uint8).reshape(blocks_count, count, depth).transpose(1, 0, 2)
        rows = self._rows.take(symbols + _offsets(count), axis=0)
        while count > 1:
            half = count // 2
            rows[:half] ^= rows[count - half : count]
            count -= half
        parity: bytes = rows[0].view(np.uint8).transpose(0, 2, 1).tobytes()
        return parity

    def correct(self, word: bytes) -> bytes:
        """One code word as it was sent: data and parity.

        Raises:
            CodingError: more symbols are wrong than can be corrected.
        """
        parity = self.parity(word[:-PARITY_BYTES])
        if parity == word[-PARITY_BYTES:]:
            return word
        difference = bytes(map(xor, parity, word[-PARITY_BYTES:]))
        if self._to_conventional is not None:
            difference = difference.translate(self._to_conventional)
        corrected = bytearray(word)
        for place, value in self._errors(difference):
            if place >= len(word):
                raise CodingError("code word: an error would lie in the virtual fill; more than can be corrected")
            if self._from_conventional is not None:
                value = self._from_conventional[value]
            corrected[-1 - place] ^= value
        fixed = bytes(corrected)
        if self.parity(fixed[:-PARITY_BYTES]) != fixed[-PARITY_BYTES:]:
            raise CodingError(f"code word: more than {ERRORS_MAX} symbols are wrong")
        return fixed

    def _errors(self, difference: bytes) -> list[tuple[int, int]]:
        """Errors as (place counted from the end of the word, value), from the difference of the parities.

        With more errors than can be corrected the answer means nothing.
        """
        field = self._field
        syndromes = reduce(xor, (row[value] for row, value in zip(field.syndromes, difference, strict=True)))
        solution = self._key_equation(syndromes)
        evaluator, locator = solution[:ERRORS_MAX], solution[ERRORS_MAX:]
        even = reduce(xor, (field.values[power][locator[power]] for power in range(0, _LOCATOR_BYTES, 2)))
        odd = reduce(xor, (field.values[power][locator[power]] for power in range(1, _LOCATOR_BYTES, 2)))
        sums = (even ^ odd).to_bytes(WORD_BYTES, "little")
        divisors = odd.to_bytes(WORD_BYTES, "little")  # x Λ'(x): the terms of odd degree
        numbers = reduce(xor, (row[value] for row, value in zip(field.values, evaluator, strict=False)))
        dividends = numbers.to_bytes(WORD_BYTES, "little")
        errors: list[tuple[int, int]] = []
        place = sums.find(0)
        while place >= 0:
            # Forney: X^-(b + 2t) Ω'(1/X) / (Λ'(1/X) / X), with the upper half Ω' of the evaluator
            exponent = _LOGARITHM[dividends[place]] - _LOGARITHM[divisors[place]]
            exponent -= _ROOT_STEP * (_FIRST_ROOT + PARITY_BYTES) * place
            errors.append((place, _POWER[exponent % WORD_BYTES]))
            place = sums.find(0, place + 1)
        return errors

    def _key_equation(self, syndromes: int) -> bytes:
        """Upper half of the error evaluator (16 coefficients) and error locator (17), lowest degree first."""
        times = self._field.times
        length = PARITY_BYTES + _LOCATOR_BYTES
        current = syndromes | 1 << 8 * (length - 1)
        kept = current.to_bytes(length, "little")
        scale, balance = 1, 0
        for _ in range(PARITY_BYTES):
            first, current = current & 0xFF, current >> 8
            if not first:
                # The algorithm would scale by `scale` here; a common factor of both polynomials changes nothing.
                balance += 1
                continue
            shifted = current.to_bytes(length, "little")
            scaled = int.from_bytes(shifted.translate(times[scale]), "little")
            current = scaled ^ int.from_bytes(kept.translate(times[first]), "little")
            if balance >= 0:
                kept, scale, balance = shifted, first, -balance - 1
            else:
                balance += 1
        return current.to_bytes(length, "little")[: ERRORS_MAX + _LOCATOR_BYTES]
