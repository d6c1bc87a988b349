"""Comparisons whose limit follows the size of what is compared."""

import numpy as np


def close(found, expected, digits):
    """Assert max|found - expected| <= 10^-digits max|expected|.

    What rounding leaves of a sum follows its largest terms, whatever machine
    adds them: small numbers beside large ones have fewer digits, and an
    absolute limit holds for numbers of one size only. float32 has 7.2 digits.
    A sum of n products in another order keeps about 7 - log10(n) / 2, and of
    those a network of some ten layers loses one.

    Args:
        found, expected: arrays of one shape, or that broadcast.
        digits: may be a fraction: 4.5 is a relative error of 3e-5.
    """
    size = float(np.max(np.abs(np.asarray(expected, dtype="float64"))))
    np.testing.assert_allclose(
        found, expected, rtol=0.0, atol=size * 10.0**-digits
    )
