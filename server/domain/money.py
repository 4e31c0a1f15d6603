"""Amounts of money: integers in the minor unit of an ISO 4217 currency. Never floats."""

from typing import Final

from server import limits

# Digits after the decimal point (ISO 4217, list one); every other currency has two.
_DIGITS: Final = {
    "BHD": 3, "CLP": 0, "IQD": 3, "ISK": 0, "JOD": 3, "JPY": 0, "KRW": 0, "KWD": 3,
    "OMR": 3, "PYG": 0, "TND": 3, "UGX": 0, "VND": 0, "XAF": 0, "XOF": 0, "XPF": 0,
}  # fmt: skip


def minor_digits(currency: str) -> int:
    """How many decimal digits the minor unit of `currency` stands for."""
    return _DIGITS.get(currency, 2)


def amount_text(minor: int, currency: str) -> str:
    """`minor` units as a decimal number without grouping or symbol: (1999, "CNY") is 19.99."""
    digits = minor_digits(currency)
    sign = "-" if minor < 0 else ""
    whole, rest = divmod(abs(minor), 10**digits)
    return f"{sign}{whole}.{rest:0{digits}d}" if digits else f"{sign}{whole}"


def line_total(price: int, quantity: int) -> int:
    """Minor units for `quantity` units; below 2**53 for every price and quantity allowed."""
    return price * quantity


assert limits.PRICE_MINOR_MAX * limits.CLAIM_QUANTITY_MAX < 2**53
